"""Image sets: what must be drawn, once for all units and jobs that ask for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import ColumnElement, Row, TextClause, and_, delete, func, select, update
from sqlalchemy.orm import Session

from dnd_services.coordinator import states
from dnd_services.coordinator.models import (
    JOB_SET_OPEN,
    ImageSetRow,
    JobLayerRow,
    JobRow,
    JobSetRow,
    SetWaitRow,
    UnitRow,
    WorkRow,
)
from dnd_services.coordinator.store.bulk import Values, among, insert_rows, update_rows
from dnd_services.coordinator.store.counters import Tally, read_counters
from dnd_services.coordinator.store.results import count_results

_ROWS_PER_STATEMENT = 500


@dataclass(frozen=True)
class Need:
    """One image set that a unit needs.

    Attributes:
        key: Key of the set in the record.
        prompt: What is to be drawn.
        scope: What it is to the job: PROMPTS, FRESH or BANK.
    """

    key: str
    prompt: str
    scope: str = states.PROMPTS


@dataclass(frozen=True)
class Asked:
    """What a unit waits for.

    Attributes:
        set_ids: Its image sets, in the order of its needs.
        num_open: How many of them have not ended.
    """

    set_ids: tuple[int, ...]
    num_open: int


def ask_for_sets(
    session: Session, tally: Tally, job_id: str, needs: Mapping[int, Sequence[Need]]
) -> dict[int, Asked]:
    """Makes sure that the sets of some units (ordinal to needs) exist or will exist.

    The bank of a job asks as the unit BANK_ORDINAL.

    A set that has failed is drawn again when another job asks for it; the job for which it failed
    goes on without it, so that its result does not depend on who asked when.
    """
    wanted = {need.key: need for some in needs.values() for need in some}
    if not wanted:
        return {ordinal: Asked((), 0) for ordinal in needs}
    new = [
        {"key": key, "prompt": need.prompt, "state": states.READY}
        for key, need in sorted(wanted.items())
    ]
    insert_rows(session, ImageSetRow, new, ignore=True)
    rows = {
        row.key: row
        for row in session.scalars(
            select(ImageSetRow)
            .where(among(session, ImageSetRow.key, list(wanted)))
            .order_by(ImageSetRow.id)
            .with_for_update()
        )
    }
    known = {
        row.set_id: row
        for row in session.scalars(
            select(JobSetRow).where(
                JobSetRow.job_id == job_id,
                among(session, JobSetRow.set_id, [r.id for r in rows.values()]),
            )
        )
    }
    open_ids = set()
    for row in rows.values():
        if row.id in known:
            if known[row.id].is_open:
                open_ids.add(row.id)
            continue
        if row.state == states.FAILED:
            start_again(row)
        is_open = row.state not in states.ENDED
        if is_open:
            open_ids.add(row.id)
        scope = wanted[row.key].scope
        session.add(
            JobSetRow(job_id=job_id, set_id=row.id, key=row.key, scope=scope, is_open=is_open)
        )
        tally.add(job_id, _counter(scope), states.READY if is_open else row.state)

    asked = {}
    new_waits: list[Values] = []
    for ordinal, some in needs.items():
        ids = tuple(rows[need.key].id for need in some)
        waits = open_ids.intersection(ids)
        new_waits += _waits(job_id, ordinal, waits)
        asked[ordinal] = Asked(ids, len(waits))
    insert_rows(session, SetWaitRow, new_waits)
    count_results(tally, job_id, "synthesize", 0, sum(len(some) for some in needs.values()))
    return asked


def _waits(job_id: str, ordinal: int, set_ids: Iterable[int]) -> list[Values]:
    return [{"set_id": i, "job_id": job_id, "ordinal": ordinal} for i in sorted(set_ids)]


def _counter(scope: str) -> str:
    return states.counter_name("synthesize", scope)


def start_again(row: ImageSetRow) -> None:
    """A failed set gets all its attempts again; its old error stays until it is drawn."""
    row.state = states.READY
    row.attempts = row.losses = 0
    row.not_before = 0.0


def end_sets(session: Session, tally: Tally, sets: Iterable[ImageSetRow]) -> None:
    """Tells the jobs and units that waited for `sets` that these have ended."""
    by_id = {row.id: row for row in sets}
    if not by_id:
        return
    for pair in session.scalars(
        select(JobSetRow).where(among(session, JobSetRow.set_id, list(by_id)), JOB_SET_OPEN)
    ):
        pair.is_open = False
        tally.add(pair.job_id, _counter(pair.scope), states.READY, -1)
        tally.add(pair.job_id, _counter(pair.scope), by_id[pair.set_id].state)

    waiting: defaultdict[str, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
    ended = among(session, SetWaitRow.set_id, list(by_id))
    found = select(SetWaitRow.job_id, SetWaitRow.ordinal).where(ended)
    for job_id, ordinal in session.execute(found):
        waiting[job_id][ordinal] += 1
    session.execute(delete(SetWaitRow).where(ended))
    for job_id, ordinals in sorted(waiting.items()):
        _unblock(session, tally, job_id, ordinals)


def _unblock(session: Session, tally: Tally, job_id: str, ordinals: Mapping[int, int]) -> None:
    """Takes ended sets off the work that waits for them: at none left, it is READY.

    A unit waits in one stage at a time, and the bank has an ordinal of its own.
    """
    places = iter(sorted(ordinals))
    while some := list(islice(places, _ROWS_PER_STATEMENT)):
        changed: list[Values] = []
        for work in session.execute(
            select(WorkRow.id, WorkRow.stage, WorkRow.scope, WorkRow.ordinal, WorkRow.blockers)
            .where(
                WorkRow.job_id == job_id,
                WorkRow.stage.in_(("score", "calibrate")),
                WorkRow.scope.in_((states.UNITS, states.BANK)),
                among(session, WorkRow.ordinal, some),
                WorkRow.state == states.BLOCKED,
            )
            .order_by(WorkRow.id)
            .with_for_update()
        ):
            left = work.blockers - ordinals[work.ordinal]
            state = states.BLOCKED if left > 0 else states.READY
            changed.append({"id": work.id, "blockers": left, "state": state})
            tally.add_move(job_id, work.stage, work.scope, states.BLOCKED, state)
        update_rows(session, WorkRow, changed)


def reopen_sets(
    session: Session, tally: Tally, job_id: str, set_ids: Mapping[int, Sequence[int]]
) -> dict[int, int]:
    """Draws failed sets of some units (ordinal to ids) again; for each, how many it waits for."""
    ids = iter(sorted({i for some in set_ids.values() for i in some}))
    failed: set[int] = set()
    while some := list(islice(ids, _ROWS_PER_STATEMENT)):
        for row in session.scalars(
            select(ImageSetRow)
            .where(ImageSetRow.id.in_(some), ImageSetRow.state != states.DONE)
            .order_by(ImageSetRow.id)
            .with_for_update()
        ):
            failed.add(row.id)
            if row.state == states.FAILED:
                start_again(row)
        for pair in session.scalars(
            select(JobSetRow).where(JobSetRow.job_id == job_id, JobSetRow.set_id.in_(some))
        ):
            if pair.set_id in failed and not pair.is_open:
                pair.is_open = True
                tally.add(job_id, _counter(pair.scope), states.FAILED, -1)
                tally.add(job_id, _counter(pair.scope), states.READY)
    waits = {ordinal: failed.intersection(wanted) for ordinal, wanted in set_ids.items()}
    new_waits = [
        row for ordinal, waited in waits.items() for row in _waits(job_id, ordinal, waited)
    ]
    insert_rows(session, SetWaitRow, new_waits)
    return {ordinal: len(waited) for ordinal, waited in waits.items()}


def reopen_bank(session: Session, tally: Tally, job_id: str) -> int:
    """Asks again for the sets of a job's bank that are not there; answers how many that are."""
    num_done = num_open = 0
    for pair, row in session.execute(
        select(JobSetRow, ImageSetRow)
        .join(ImageSetRow, ImageSetRow.id == JobSetRow.set_id)
        .where(JobSetRow.job_id == job_id, JobSetRow.scope == states.BANK)
        .order_by(ImageSetRow.id)
        .with_for_update(of=ImageSetRow)
    ):
        if row.state == states.DONE:
            num_done += 1
            continue
        if row.state == states.FAILED:
            start_again(row)
        pair.is_open = True
        num_open += 1
        session.add(SetWaitRow(set_id=row.id, job_id=job_id, ordinal=states.BANK_ORDINAL))
    # Sets that the end of the job has closed may be counted in any state.
    for state, num in read_counters(session, job_id).get(_counter(states.BANK), {}).items():
        tally.add(job_id, _counter(states.BANK), state, -num)
    tally.add(job_id, _counter(states.BANK), states.DONE, num_done)
    tally.add(job_id, _counter(states.BANK), states.READY, num_open)
    return num_open


def bank_sets(session: Session, job_id: str) -> dict[int, ImageSetRow]:
    """The image sets of a job's bank, by id."""
    statement = (
        select(ImageSetRow)
        .join(JobSetRow, JobSetRow.set_id == ImageSetRow.id)
        .where(JobSetRow.job_id == job_id, JobSetRow.scope == states.BANK)
        .order_by(ImageSetRow.id)
    )
    return {row.id: row for row in session.scalars(statement)}


def ready_sets(session: Session, job_id: str, now: float, limit: int) -> Sequence[Row[int, bool]]:
    """(id, alone) of sets that a job waits for and that can be handed out, oldest first."""
    statement = (
        select(ImageSetRow.id, ImageSetRow.alone)
        .join(JobSetRow, JobSetRow.set_id == ImageSetRow.id)
        .where(*_is_ready(job_id, now))
        .order_by(ImageSetRow.id)
        .limit(limit)
    )
    return session.execute(statement).all()


def count_ready_sets(session: Session, job_id: str, now: float, most: int) -> int:
    """How many sets that a job waits for can be handed out, counted up to `most`."""
    found = (
        select(ImageSetRow.id)
        .join(JobSetRow, JobSetRow.set_id == ImageSetRow.id)
        .where(*_is_ready(job_id, now))
        .limit(most)
        .subquery()
    )
    return session.scalar(select(func.count()).select_from(found)) or 0


def _is_ready(job_id: str, now: float) -> tuple[ColumnElement[bool] | TextClause, ...]:
    return (
        JobSetRow.job_id == job_id,
        JOB_SET_OPEN,
        ImageSetRow.state == states.READY,
        ImageSetRow.not_before <= now,
    )


def find_askers(session: Session, set_ids: Sequence[int]) -> dict[int, tuple[JobRow, str]]:
    """For each set the most urgent running job that waits for it, if any, and what it is to it."""
    statement = (
        select(JobSetRow.set_id, JobRow, JobSetRow.scope)
        .join(JobRow, JobRow.id == JobSetRow.job_id)
        .where(JobSetRow.set_id.in_(list(set_ids)), JOB_SET_OPEN, JobRow.state == "running")
        .order_by(JobRow.is_batch.desc(), JobRow.id.desc())
    )
    return {row[0]: (row[1], row[2]) for row in session.execute(statement)}


@dataclass(frozen=True)
class Waiting:
    """A unit that waits for drawings.

    Attributes:
        trace: `traceparent` of its job; empty for none.
    """

    job_id: str
    trace: str
    layer: str
    unit: int


def find_waiting(session: Session, set_ids: Sequence[int]) -> list[Waiting]:
    """The units of all jobs that wait for any of some image sets."""
    statement = (
        select(JobRow.id, JobRow.trace, JobLayerRow.layer, UnitRow.unit)
        .join(UnitRow, UnitRow.job_id == JobRow.id)
        .join(
            JobLayerRow,
            and_(JobLayerRow.job_id == UnitRow.job_id, JobLayerRow.place == UnitRow.place),
        )
        .join(
            SetWaitRow,
            and_(SetWaitRow.job_id == UnitRow.job_id, SetWaitRow.ordinal == UnitRow.ordinal),
        )
        .where(among(session, SetWaitRow.set_id, set_ids))
        .distinct()
    )
    return [Waiting(*row) for row in session.execute(statement)]


def sample_sets(session: Session, job_id: str, limit: int) -> list[ImageSetRow]:
    """Drawn sets of a job's candidates, those with the smallest keys."""
    statement = (
        select(ImageSetRow)
        .join(JobSetRow, JobSetRow.set_id == ImageSetRow.id)
        .where(
            JobSetRow.job_id == job_id,
            JobSetRow.scope == states.PROMPTS,
            ImageSetRow.state == states.DONE,
        )
        .order_by(JobSetRow.key)
        .limit(limit)
    )
    return list(session.scalars(statement))


def drop_waits(session: Session, job_id: str) -> None:
    """A job that has ended waits for nothing."""
    session.execute(delete(SetWaitRow).where(SetWaitRow.job_id == job_id))
    session.execute(
        update(JobSetRow).where(JobSetRow.job_id == job_id, JOB_SET_OPEN).values(is_open=False)
    )
