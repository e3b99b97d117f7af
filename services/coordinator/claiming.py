"""From a task message to what is to be done: claims rows, then reads all that their stage needs.

Claiming writes, and on SQLite nobody else can write meanwhile, so it does nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from sqlalchemy import select
from sqlalchemy.orm import Session

from dnd.jobs import JobState
from dnd_services.coordinator import states
from dnd_services.coordinator.models import (
    ImageSetRow,
    JobLayerRow,
    JobRow,
    UnitRow,
    WorkRow,
)
from dnd_services.coordinator.store.bulk import among
from dnd_services.coordinator.store.claims import Ticket, move, read_rows, read_taken, take
from dnd_services.coordinator.store.counters import Tally
from dnd_services.coordinator.store.reading import read_layers
from dnd_services.coordinator.store.sets import bank_sets, find_askers
from dnd_services.coordinator.store.steps import find_bank, read_units

Row: TypeAlias = WorkRow | ImageSetRow


@dataclass(frozen=True)
class Group:
    """Claimed rows that one call of a stage function can serve: of one job, scope and layer.

    Attributes:
        rows: What was claimed, in the order of the task.
        layers: The layers of the job, in its order.
        units: The units of the rows by ordinal; empty for other scopes.
        sets: Image sets that the units or the bank need, by id; only for scores and percentiles.
        shard_refs: Shards of the job's index; only for merging them.
        bank: The ended work on the job's bank; only for percentiles of units.
    """

    stage: str
    scope: str
    job: JobRow
    rows: tuple[Row, ...]
    layers: tuple[JobLayerRow, ...] = ()
    units: dict[int, UnitRow] = field(default_factory=dict)
    sets: dict[int, ImageSetRow] = field(default_factory=dict)
    shard_refs: tuple[str, ...] = ()
    bank: WorkRow | None = None

    @property
    def tickets(self) -> list[Ticket]:
        return [Ticket(row.id, row.fence) for row in self.rows]

    @property
    def table(self) -> type[WorkRow] | type[ImageSetRow]:
        return table_of(self.stage)

    @property
    def works(self) -> list[WorkRow]:
        """The rows, for every stage but synthesize."""
        return [row for row in self.rows if isinstance(row, WorkRow)]

    @property
    def unit_rows(self) -> list[UnitRow]:
        """The units of the rows, in order."""
        return [self.units[work.ordinal] for work in self.works]

    @property
    def layer(self) -> JobLayerRow:
        """The layer that all units of the group belong to."""
        return self.layers[self.unit_rows[0].place]


def table_of(stage: str) -> type[WorkRow] | type[ImageSetRow]:
    """What is claimed for a stage: drawings are claimed as image sets, all else as work."""
    return ImageSetRow if stage == "synthesize" else WorkRow


def claim(
    session: Session, stage: str, tickets: Sequence[Ticket], owner: str, until: float
) -> list[Ticket]:
    """Claims what is still to be done of a task; what there is to know of it, `read_groups` reads.

    Rows of a cancelled job are CANCELLED, those of any other job that does not run are READY again.
    """
    table = table_of(stage)
    taken = take(session, table, tickets, owner, until)
    idle = _idle_sets(session, taken) if table is ImageSetRow else _idle_works(session, taken)
    if not idle:
        return taken
    tally = Tally(session)
    for row in read_rows(session, table, idle).values():
        move(tally, row, idle[row.id])
    tally.write()
    return [ticket for ticket in taken if ticket.id not in idle]


def _idle_works(session: Session, taken: Sequence[Ticket]) -> dict[int, str]:
    """Claimed rows of jobs that do not run, and the state that they get.

    The flag on the job is checked here, and again when results are written.
    """
    statement = (
        select(WorkRow.id, JobRow.state)
        .join(JobRow, JobRow.id == WorkRow.job_id)
        .where(
            among(session, WorkRow.id, [ticket.id for ticket in taken]),
            JobRow.state != JobState.RUNNING.value,
        )
    )
    return {
        work_id: states.CANCELLED if state == JobState.CANCELLED.value else states.READY
        for work_id, state in session.execute(statement)
    }


def _idle_sets(session: Session, taken: Sequence[Ticket]) -> dict[int, str]:
    """Claimed sets that nobody needs now: every job that does is paused or cancelled."""
    ids = [ticket.id for ticket in taken]
    askers = find_askers(session, ids)
    return {set_id: states.READY for set_id in ids if set_id not in askers}


def read_groups(session: Session, stage: str, taken: Sequence[Ticket]) -> list[Group]:
    """What has been claimed of a task, grouped, with all that its stage needs."""
    if stage == "synthesize":
        return _groups_of_sets(session, taken)
    works = read_taken(session, WorkRow, taken)
    ids = {work.job_id for work in works}
    jobs = {job.id: job for job in session.scalars(select(JobRow).where(JobRow.id.in_(ids)))}
    units: dict[str, dict[int, UnitRow]] = {}
    for job_id in jobs:
        ordinals = [
            work.ordinal for work in works if work.job_id == job_id and work.scope == states.UNITS
        ]
        units[job_id] = read_units(session, job_id, ordinals)
    groups: defaultdict[tuple[str, str, int], list[WorkRow]] = defaultdict(list)
    for work in works:
        place = -1
        if work.scope == states.UNITS:
            place = units[work.job_id][work.ordinal].place
        groups[work.job_id, work.scope, place].append(work)
    layers = {job_id: tuple(read_layers(session, job_id)) for job_id in jobs}
    return [
        Group(
            stage=stage,
            scope=scope,
            job=jobs[job_id],
            rows=tuple(rows),
            layers=layers[job_id],
            units=units[job_id],
            sets=_sets_of(session, stage, scope, job_id, units[job_id]),
            shard_refs=_shards_of(session, job_id) if scope == states.MERGE else (),
            bank=find_bank(session, job_id) if stage == "calibrate" else None,
        )
        for (job_id, scope, _), rows in groups.items()
    ]


def _groups_of_sets(session: Session, taken: Sequence[Ticket]) -> list[Group]:
    """Sets by the job that they are drawn for.

    Those that nobody has needed since they were claimed, a moment ago, stay until their leases end.
    """
    rows = read_taken(session, ImageSetRow, taken)
    askers = find_askers(session, [row.id for row in rows])
    groups: defaultdict[tuple[str, str], list[ImageSetRow]] = defaultdict(list)
    for row in rows:
        if row.id in askers:
            job, scope = askers[row.id]
            groups[job.id, scope].append(row)
    jobs = {job.id: job for job, _ in askers.values()}
    return [
        Group(stage="synthesize", scope=scope, job=jobs[job_id], rows=tuple(some))
        for (job_id, scope), some in groups.items()
    ]


def _sets_of(
    session: Session, stage: str, scope: str, job_id: str, units: dict[int, UnitRow]
) -> dict[int, ImageSetRow]:
    if scope == states.BANK:
        return bank_sets(session, job_id)
    ids: set[int] = set()
    if stage == "score":
        ids = {set_id for unit in units.values() for set_id in unit.set_ids}
    elif stage == "calibrate":
        ids = {unit.fresh_set_id for unit in units.values() if unit.fresh_set_id}
    return read_rows(session, ImageSetRow, sorted(ids), lock=False) if ids else {}


def _shards_of(session: Session, job_id: str) -> tuple[str, ...]:
    statement = (
        select(WorkRow.output)
        .where(
            WorkRow.job_id == job_id,
            WorkRow.stage == "index",
            WorkRow.scope == states.SHARD,
        )
        .order_by(WorkRow.ordinal)
    )
    return tuple(session.scalars(statement))
