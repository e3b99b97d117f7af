"""What follows when a piece of work has ended: the next stage, the unit's end, the job's end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dnd.jobs import JobState, UnitState
from dnd.types import TokenUse
from dnd_services.coordinator import states
from dnd_services.coordinator.models import JobLayerRow, JobRow, UnitRow, WorkRow
from dnd_services.coordinator.store.bulk import among, insert_rows, update_rows
from dnd_services.coordinator.store.claims import move_held
from dnd_services.coordinator.store.counters import SETTLED, UNIT, Tally, read_counters
from dnd_services.coordinator.store.results import count_results, keep_results
from dnd_services.coordinator.store.sets import Asked, Need, ask_for_sets, drop_waits
from dnd_services.coordinator.store.spending import spend


@dataclass(frozen=True)
class UnitStep:
    """A stage of a unit that has ended well.

    Attributes:
        output_ref: What it gave (`outputs.save_all`).
        settled: The unit's state if it ends here, else None.
        labels: Labels, best first, once it has been scored.
        labelled_as: The unit's state if its next stage should fail: the label stays.
        needs: Image sets to be drawn before the next stage.
        other_timings: Seconds of stages that the unit shares with others.
        tokens: What the language model took.
        key: What the output is found by again (`reuse.py`); empty if it is not.
        reused: Whether it was found so.
        percentile: Of the label among the concepts of the bank, once it is calibrated.
    """

    output_ref: str = ""
    settled: UnitState | None = None
    labels: tuple[str, ...] = ()
    labelled_as: UnitState | None = None
    needs: tuple[Need, ...] = ()
    other_timings: tuple[tuple[str, float], ...] = ()
    tokens: TokenUse = field(default_factory=TokenUse)
    key: str = ""
    reused: bool = False
    percentile: float | None = None


@dataclass(frozen=True)
class MergedLayer:
    """The index of one layer: its place in the job, its artifacts, its live units asked for."""

    place: int
    index_ref: str
    activities_ref: str
    num_live: int


def read_job(session: Session, job_id: str) -> JobRow | None:
    """A job, locked until the end of the transaction where the database locks rows."""
    return session.get(JobRow, job_id, with_for_update=True)


def read_units(session: Session, job_id: str, ordinals: Sequence[int]) -> dict[int, UnitRow]:
    """Units of a job by ordinal."""
    statement = (
        select(UnitRow)
        .where(UnitRow.job_id == job_id, among(session, UnitRow.ordinal, list(ordinals)))
        .order_by(UnitRow.ordinal)
    )
    return {row.ordinal: row for row in session.scalars(statement)}


def finish_units(
    session: Session,
    tally: Tally,
    job: JobRow,
    units: dict[int, UnitRow],
    steps: Sequence[tuple[WorkRow, UnitStep]],
    item_s: float,
    now: float,
) -> None:
    """Writes what one stage gave for some units of a job, and makes their next stage ready.

    Args:
        item_s: What each of them took that was not there already, seconds.
    """
    spend(
        tally,
        job,
        num_input_tokens=sum(step.tokens.num_input_tokens for _, step in steps),
        num_output_tokens=sum(step.tokens.num_output_tokens for _, step in steps),
        num_units=sum(step.settled is not None for _, step in steps),
    )
    asked = ask_for_sets(
        session, tally, job.id, {work.ordinal: step.needs for work, step in steps if step.needs}
    )
    bank_open = any(step.labelled_as for _, step in steps) and is_bank_open(session, job.id)
    changed: list[dict[str, Any]] = []
    following: list[dict[str, Any]] = []
    for work, step in steps:
        unit = units[work.ordinal]
        change = _change_of(unit, work.stage, step, item_s)
        changed.append(change)
        if step.settled is not None:
            if not step.labels:
                tally.add(job.id, work.stage, SETTLED)
            _count_end(tally, job, unit.state, step.settled)
            continue
        stage = states.NEXT_STAGE[work.stage]
        assert stage, f"stage {work.stage} settles every unit"
        waits = asked.get(work.ordinal, Asked((), 0))
        blockers = waits.num_open
        change["stage"] = stage
        if stage == "score":
            change["set_ids"] = list(waits.set_ids)
        elif stage == "calibrate":
            (change["fresh_set_id"],) = waits.set_ids
            assert step.labelled_as, "a unit is calibrated once it has a label"
            change["labelled_as"] = step.labelled_as.value
            blockers += bank_open
        following.append(_unit_work(job.id, stage, work.ordinal, blockers))
    move_held(tally, [work for work, _ in steps], states.DONE, error="")
    update_rows(session, UnitRow, changed)
    _add_works(session, tally, following)
    num_reused = sum(step.reused for _, step in steps)
    count_results(tally, job.id, steps[0][0].stage, len(steps) - num_reused, num_reused)
    keep_results(
        session,
        {step.key: step.output_ref for _, step in steps if step.key and not step.reused},
    )
    end_job_if_done(session, tally, job, now)


def _change_of(unit: UnitRow, stage: str, step: UnitStep, item_s: float) -> dict[str, Any]:
    """What a stage changes of a unit's row, by column."""
    change: dict[str, Any] = {
        "job_id": unit.job_id,
        "ordinal": unit.ordinal,
        "outputs": {**unit.outputs, stage: step.output_ref},
        "timings": {
            **unit.timings,
            stage: 0.0 if step.reused else item_s,
            **dict(step.other_timings),
        },
    }
    if step.labels:
        change |= {"labels": list(step.labels), "percentile": step.percentile}
    if step.settled is not None:
        change |= {"state": step.settled.value, "stage": "", "error": ""}
    return change


def _unit_work(job_id: str, stage: str, ordinal: int, blockers: int) -> dict[str, Any]:
    """The row of a stage of a unit, READY unless something blocks it."""
    return {
        "job_id": job_id,
        "stage": stage,
        "scope": states.UNITS,
        "ordinal": ordinal,
        "state": states.BLOCKED if blockers else states.READY,
        "blockers": blockers,
    }


def _add_works(session: Session, tally: Tally, rows: Sequence[dict[str, Any]]) -> None:
    insert_rows(session, WorkRow, rows)
    for row in rows:
        tally.add(row["job_id"], row["stage"], row["state"])


def fail_unit(tally: Tally, job: JobRow, unit: UnitRow, work: WorkRow, error: str) -> None:
    """A unit whose work has failed for good. Call `end_job_if_done` after the last one."""
    tally.move(work, states.FAILED)
    work.error = error
    unit.error = error
    unit.stage = work.stage
    end_unit(tally, job, unit, UnitState.FAILED)


def keep_label(tally: Tally, job: JobRow, unit: UnitRow, work: WorkRow, error: str) -> None:
    """A unit that has a label and gets no percentile. Call `end_job_if_done` after the last one."""
    tally.move(work, states.FAILED)
    work.error = error
    unit.error = error
    end_unit(tally, job, unit, UnitState(unit.labelled_as))


def end_unit(tally: Tally, job: JobRow, unit: UnitRow, state: UnitState) -> None:
    """Writes and counts a unit as ended."""
    _count_end(tally, job, unit.state, state)
    spend(tally, job, num_units=1)
    unit.state = state.value
    if state is not UnitState.FAILED:
        unit.stage = ""


def _count_end(tally: Tally, job: JobRow, old: str, state: UnitState) -> None:
    tally.add(job.id, UNIT, old, -1)
    tally.add(job.id, UNIT, state.value)
    job.num_ended += 1


def finish_shard(session: Session, tally: Tally, work: WorkRow, shard_ref: str) -> None:
    """A shard of the index is there; after the last one they can be merged."""
    tally.move(work, states.DONE)
    work.output = shard_ref
    merge = session.scalars(
        select(WorkRow)
        .where(
            WorkRow.job_id == work.job_id,
            WorkRow.stage == "index",
            WorkRow.scope == states.MERGE,
        )
        .with_for_update()
    ).one()
    merge.blockers -= 1
    if merge.blockers <= 0 and merge.state == states.BLOCKED:
        tally.move(merge, states.READY)


def finish_merge(
    session: Session, tally: Tally, job: JobRow, work: WorkRow, layers: Sequence[MergedLayer]
) -> None:
    """The index is there: from now on the dispatcher writes the units' rows."""
    tally.move(work, states.DONE)
    for merged in layers:
        row = session.get_one(JobLayerRow, (job.id, merged.place))
        row.index_ref = merged.index_ref
        row.activities_ref = merged.activities_ref
    job.num_live = sum(merged.num_live for merged in layers)
    for one in dissections(session, job.id):
        tally.move(one, states.READY)


def dissections(session: Session, job_id: str) -> list[WorkRow]:
    """The work of labelling a job's layers from its concept set, in the order of the layers."""
    statement = (
        select(WorkRow)
        .where(WorkRow.job_id == job_id, WorkRow.stage == "dissect")
        .order_by(WorkRow.ordinal)
        .with_for_update()
    )
    return list(session.scalars(statement))


def finish_dissection(tally: Tally, work: WorkRow, ref: str) -> None:
    """A layer is labelled from the concept set; after the last one units get rows."""
    tally.move(work, states.DONE)
    work.output = ref


def find_bank(session: Session, job_id: str) -> WorkRow | None:
    """The work on a job's bank; None where the profile has none."""
    statement = select(WorkRow).where(
        WorkRow.job_id == job_id, WorkRow.stage == "calibrate", WorkRow.scope == states.BANK
    )
    return session.scalars(statement).one_or_none()


def is_bank_open(session: Session, job_id: str) -> bool:
    """Whether units that are to be calibrated must wait for the job's bank."""
    bank = find_bank(session, job_id)
    return bank is not None and bank.state not in states.ENDED


def end_bank(session: Session, tally: Tally, work: WorkRow, bank_ref: str) -> None:
    """The bank is measured, or (without a reference) has failed: units wait for it no longer."""
    tally.move(work, states.DONE if bank_ref else states.FAILED)
    work.output = bank_ref
    for waiting in session.scalars(
        select(WorkRow)
        .where(
            WorkRow.job_id == work.job_id,
            WorkRow.stage == "calibrate",
            WorkRow.scope == states.UNITS,
            WorkRow.state == states.BLOCKED,
        )
        .order_by(WorkRow.id)
        .with_for_update()
    ):
        waiting.blockers -= 1
        if waiting.blockers <= 0:
            tally.move(waiting, states.READY)


def fail_job(session: Session, job: JobRow, error: str, now: float) -> None:
    """Nothing of the job can be labelled."""
    job.state = JobState.FAILED.value
    job.error = error
    job.ended_at = now
    drop_waits(session, job.id)


def end_job_if_done(session: Session, tally: Tally, job: JobRow, now: float) -> None:
    """A job's end is a count: after the last unit its layers are compared, then it is over."""
    tally.write()
    if job.state not in (JobState.RUNNING.value, JobState.PAUSED.value):
        return
    if job.num_ended < job.num_units:
        return
    comparisons = list(
        session.scalars(
            select(WorkRow)
            .where(
                WorkRow.job_id == job.id,
                WorkRow.stage == "score",
                WorkRow.scope == states.LAYER,
            )
            .order_by(WorkRow.id)
            .with_for_update()
        )
    )
    for work in comparisons:
        if work.state == states.BLOCKED:
            labelled = _num_labelled(session, job.id, work.ordinal)
            tally.move(work, states.READY if labelled else states.SKIPPED)
    tally.write()
    if all(work.state in states.ENDED for work in comparisons):
        bank = find_bank(session, job.id)
        if bank is not None and bank.state in (states.BLOCKED, states.READY):
            tally.move(bank, states.SKIPPED)  # no unit came so far
            tally.write()
        _end_job(session, job, now)


def _num_labelled(session: Session, job_id: str, place: int) -> int:
    """Labelled units of a layer; units that are settled without a label have no output of score."""
    layer = session.get_one(JobLayerRow, (job_id, place))
    statement = select(func.count()).where(
        WorkRow.job_id == job_id,
        WorkRow.stage == "score",
        WorkRow.scope == states.UNITS,
        WorkRow.state == states.DONE,
        WorkRow.ordinal >= layer.first_ordinal,
        WorkRow.ordinal < layer.first_ordinal + layer.num_units,
    )
    return session.scalar(statement) or 0


def _end_job(session: Session, job: JobRow, now: float) -> None:
    units = read_counters(session, job.id).get(UNIT, {})
    num_failed = units.get(UnitState.FAILED.value, 0)
    job.ended_at = now
    drop_waits(session, job.id)
    if num_failed < job.num_units:
        job.state = JobState.COMPLETED.value
        return
    first = session.scalars(
        select(UnitRow).where(UnitRow.job_id == job.id).order_by(UnitRow.ordinal).limit(1)
    ).one()
    job.state = JobState.FAILED.value
    job.error = f"All {num_failed} units failed, the first at stage {first.stage}: {first.error}"
