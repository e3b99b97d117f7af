"""Writes what came of a group of claimed rows: one transaction, fenced, failures classified.

Only an error of the very item counts as its attempt. What may succeed later goes back to READY at
no cost; what cannot succeed before an operator acts pauses the stage.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sqlalchemy.orm import Session

from dnd.errors import (
    DeadlineExceeded,
    DigestMismatch,
    DndError,
    InvalidInput,
    Kind,
    LlmUnavailable,
    Unavailable,
    kind_of,
)
from dnd.jobs import JobState
from dnd_services.coordinator import states
from dnd_services.coordinator.claiming import Group, Row
from dnd_services.coordinator.models import ImageSetRow, JobRow, WorkRow
from dnd_services.coordinator.outcomes import (
    BankMeasured,
    LabelsCompared,
    LayerDissected,
    Outcome,
    Report,
    Result,
    SetDrawn,
    ShardIndexed,
    ShardsMerged,
    SharedResult,
)
from dnd_services.coordinator.settings import QueueSettings
from dnd_services.coordinator.states import counter_name
from dnd_services.coordinator.store import health
from dnd_services.coordinator.store.claims import find_held, move, move_held, read_rows
from dnd_services.coordinator.store.counters import Tally
from dnd_services.coordinator.store.results import BANK_RESULT, count_results, keep_results
from dnd_services.coordinator.store.sets import end_sets
from dnd_services.coordinator.store.spending import spend
from dnd_services.coordinator.store.steps import (
    UnitStep,
    end_bank,
    end_job_if_done,
    fail_job,
    fail_unit,
    finish_dissection,
    finish_merge,
    finish_shard,
    finish_units,
    keep_label,
    read_job,
    read_units,
)

log = logging.getLogger(__name__)

_MAX_BACKOFF_S = 60.0
_SILENT = (Unavailable, DeadlineExceeded, LlmUnavailable)


def write_report(
    session: Session, settings: QueueSettings, group: Group, report: Report, now: float
) -> int:
    """Writes the outcomes of the rows that are still held; answers how many those were."""
    job = read_job(session, group.job.id)
    assert job is not None
    tally = Tally(session)
    held = _held(session, group, report.outcomes)
    if job.state == JobState.CANCELLED.value and group.stage != "synthesize":
        move_held(tally, [row for row, _ in held if isinstance(row, WorkRow)], states.CANCELLED)
        tally.write()
        return 0
    failures = [(row, outcome) for row, outcome in held if isinstance(outcome, DndError)]
    results = [(row, outcome) for row, outcome in held if not isinstance(outcome, DndError)]
    num_reused = sum(
        isinstance(one, UnitStep | SharedResult) and one.reused for one in report.outcomes
    )
    num_worked_on = len(group.rows) - num_reused
    item_s = report.seconds / max(num_worked_on, 1)
    if results:
        _write_results(session, tally, job, group, results, item_s, now)
        if num_worked_on and counter_name(group.stage, group.scope) == group.stage:
            health.record_time(session, group.stage, job.profile, item_s, num_worked_on)
    if failures:
        _write_failures(session, tally, settings, job, group, failures, report, now)
    tally.write()
    if num_worked_on and any(_shows_life(outcome) for _, outcome in held):
        health.record_success(session, group.stage, [job.id])
    return len(held)


def _held(session: Session, group: Group, outcomes: Sequence[Outcome]) -> list[tuple[Row, Outcome]]:
    """The rows that are still held, with their outcomes.

    Of a stage of a unit that has ended well, it is the row as it was claimed: nobody else changes
    what is held. The others are read again, as they are changed one by one.
    """
    ids = find_held(session, group.table, group.tickets)
    held = [
        (row, outcome) for row, outcome in zip(group.rows, outcomes, strict=True) if row.id in ids
    ]
    one_by_one = [row.id for row, outcome in held if not isinstance(outcome, UnitStep)]
    fresh = read_rows(session, group.table, one_by_one) if one_by_one else {}
    return [(fresh.get(row.id, row), outcome) for row, outcome in held]


def _shows_life(outcome: Outcome) -> bool:
    """Whether the stage's service worked on the item, be it in vain."""
    return not isinstance(outcome, DndError) or kind_of(outcome) is Kind.ITEM


def _write_results(
    session: Session,
    tally: Tally,
    job: JobRow,
    group: Group,
    results: Sequence[tuple[Row, Result]],
    item_s: float,
    now: float,
) -> None:
    steps: list[tuple[WorkRow, UnitStep]] = []
    drawn: list[ImageSetRow] = []
    for row, result in results:
        if isinstance(result, UnitStep) and isinstance(row, WorkRow):
            steps.append((row, result))
            continue
        row.error = ""
        if isinstance(row, ImageSetRow):
            assert isinstance(result, SetDrawn)
            row.state = states.DONE
            row.images = list(result.images)
            row.seconds = item_s
            drawn.append(row)
        elif isinstance(result, ShardIndexed):
            finish_shard(session, tally, row, result.ref)
        elif isinstance(result, ShardsMerged):
            finish_merge(session, tally, job, row, result.layers)
        elif isinstance(result, BankMeasured):
            end_bank(session, tally, row, result.ref)
            _keep_shared(session, tally, row, result)
        elif isinstance(result, LayerDissected):
            finish_dissection(tally, row, result.ref)
            _keep_shared(session, tally, row, result)
        elif isinstance(result, LabelsCompared):
            tally.move(row, states.DONE)
            end_job_if_done(session, tally, job, now)
    spend(tally, job, num_images=sum(len(row.images) for row in drawn))
    # Whoever asked has counted them as there already.
    count_results(tally, job.id, "synthesize", len(drawn), -len(drawn))
    end_sets(session, tally, drawn)
    if steps:
        finish_units(session, tally, job, group.units, steps, item_s, now)


def _keep_shared(session: Session, tally: Tally, work: WorkRow, result: SharedResult) -> None:
    """Counts a result that is of no unit, and lets others find it."""
    if not result.ref:
        return
    name = BANK_RESULT if work.scope == states.BANK else work.stage
    count_results(tally, work.job_id, name, int(not result.reused), int(result.reused))
    if result.key and not result.reused:
        keep_results(session, {result.key: result.ref})


def _write_failures(
    session: Session,
    tally: Tally,
    settings: QueueSettings,
    job: JobRow,
    group: Group,
    failures: Sequence[tuple[Row, DndError]],
    report: Report,
    now: float,
) -> None:
    split = report.failed_whole and len(group.rows) > 1
    dead: list[tuple[Row, DndError]] = []
    for row, error in failures:
        kind = kind_of(error)
        if kind is not Kind.ITEM:
            row.alone = row.alone or _are_too_many(group, row, error)
            _back_off(tally, settings, row, error, row.dispatches, now)
        elif split:
            # Any of them may be to blame: each gets a call of its own, and nobody pays for another.
            row.alone = True
            move(tally, row, states.READY)
        else:
            row.attempts += 1
            if isinstance(error, InvalidInput) or row.attempts >= settings.max_attempts:
                dead.append((row, error))
            else:
                _back_off(tally, settings, row, error, row.attempts, now)
    _hold_back(session, settings, job, group, [error for _, error in failures], report, now)
    if dead:
        end_in_failure(session, tally, job, group.stage, dead, now)


def _are_too_many(group: Group, row: Row, error: DndError) -> bool:
    """Whether there may be too many in a call for its deadline.

    Not the first time: calls of a service that is silent all run into theirs, and what they were
    for would take long afterwards if each item of it went alone.
    """
    return isinstance(error, DeadlineExceeded) and len(group.rows) > 1 and row.dispatches > 1


def _back_off(
    tally: Tally, settings: QueueSettings, row: Row, error: DndError, tries: int, now: float
) -> None:
    """Back to READY, not at once: longer each time, and not for all rows at the same moment."""
    wait_s = min(settings.backoff_s * 2 ** min(tries - 1, 10), _MAX_BACKOFF_S)
    spread = 0.75 + (row.id * 2_654_435_761 % 1000) / 2000
    move(tally, row, states.READY)
    row.not_before = now + max(error.retry_after_s or 0.0, wait_s * spread)
    row.error = error.message


def _hold_back(
    session: Session,
    settings: QueueSettings,
    job: JobRow,
    group: Group,
    errors: Sequence[DndError],
    report: Report,
    now: float,
) -> None:
    """Pauses the stage where no item can succeed, or where its service has long been silent."""
    systemic = next((error for error in errors if kind_of(error) is Kind.SYSTEMIC), None)
    if systemic is not None:
        # Another job may be frozen to the weights that the replicas do hold.
        scope = job.id if isinstance(systemic, DigestMismatch) else health.ALL_JOBS
        health.pause_stage(session, group.stage, scope, systemic.message, now, settings.pause_s)
        log.warning("stage %s is held back: %s", group.stage, systemic.message)
        return
    silent = next((error for error in errors if isinstance(error, _SILENT)), None)
    if silent is None:
        return
    since = health.record_silence(session, group.stage, report.started_at)
    if now - since >= settings.down_s:
        reason = f"No answer for {now - since:.0f} s: {silent.message}"
        health.pause_stage(session, group.stage, health.ALL_JOBS, reason, now, settings.pause_s)
        log.warning("stage %s is held back: %s", group.stage, reason)


def end_in_failure(
    session: Session,
    tally: Tally,
    job: JobRow,
    stage: str,
    dead: Sequence[tuple[Row, DndError]],
    now: float,
) -> None:
    """Rows of a job that have failed for good, and what that means for those who wait for them."""
    units = read_units(
        session,
        job.id,
        [r.ordinal for r, _ in dead if isinstance(r, WorkRow) and r.scope == states.UNITS],
    )
    sets: list[ImageSetRow] = []
    for row, error in dead:
        row.error = error.message
        if isinstance(row, ImageSetRow):
            row.state = states.FAILED
            sets.append(row)
        elif row.scope == states.UNITS and row.stage == "calibrate":
            keep_label(tally, job, units[row.ordinal], row, error.message)
        elif row.scope == states.UNITS:
            fail_unit(tally, job, units[row.ordinal], row, error.message)
        elif row.scope == states.BANK:
            end_bank(session, tally, row, "")
        else:
            tally.move(row, states.FAILED)
            if row.scope in (states.SHARD, states.MERGE) or row.stage == "dissect":
                fail_job(session, job, f"Stage {stage} failed: {error.message}", now)
    end_sets(session, tally, sets)
    end_job_if_done(session, tally, job, now)
