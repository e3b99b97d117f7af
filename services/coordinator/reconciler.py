"""Finds what got lost: messages that never arrived, workers that went away with their work.

It also removes the rows of deleted jobs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from sqlalchemy import TextClause, and_, or_, select
from sqlalchemy.orm import Session

from dnd.errors import Internal, Unavailable
from dnd.jobs import JobState
from dnd_services.coordinator import states
from dnd_services.coordinator.claiming import Row
from dnd_services.coordinator.models import (
    SET_IN_FLIGHT,
    WORK_IN_FLIGHT,
    ImageSetRow,
    WorkRow,
)
from dnd_services.coordinator.settings import CoordinatorSettings
from dnd_services.coordinator.store import Store
from dnd_services.coordinator.store.claims import Ticket, move, read_rows
from dnd_services.coordinator.store.counters import Tally
from dnd_services.coordinator.store.deleting import deleted_jobs, purge_rows
from dnd_services.coordinator.store.leases import forget_replicas
from dnd_services.coordinator.store.sets import end_sets
from dnd_services.coordinator.store.steps import read_job
from dnd_services.coordinator.writing import end_in_failure

log = logging.getLogger(__name__)

ALONE_AFTER_LOSSES = 2
"""Work whose worker went away that often is dispatched singly from then on."""
_PURGED_AT_ONCE = 2000
_PURGES_PER_SWEEP = 5
MAX_LOSSES = 5
"""Work whose worker went away that often has failed: it is likely to be the cause."""

_IN_FLIGHT: Mapping[type[WorkRow] | type[ImageSetRow], TextClause] = {
    WorkRow: WORK_IN_FLIGHT,
    ImageSetRow: SET_IN_FLIGHT,
}


class Reconciler:
    """Sweeps the record now and then.

    Args:
        waiting: Tickets of a stage whose messages no worker has taken yet; raises Unavailable.
    """

    def __init__(
        self,
        store: Store,
        settings: CoordinatorSettings,
        waiting: Callable[[str], Collection[Ticket]],
    ) -> None:
        self._store = store
        self._settings = settings
        self._waiting = waiting

    def sweep(self) -> int:
        """Puts lost work back to READY; answers how many rows."""
        with self._store.reading() as session:
            now = self._store.now(session)
            found = [(table, self._find_in(session, table, now)) for table in _IN_FLIGHT]
        lost = [(table, self._without_waiting(rows)) for table, rows in found]
        num_rows = 0
        for table, rows in lost:
            if rows:
                with self._store.writing() as session:
                    num_rows += self._put_back(session, table, [row.id for row in rows])
        with self._store.writing() as session:
            forget_replicas(session, now)
        if num_rows:
            log.warning("%d lost items are ready again", num_rows)
        self._purge()
        return num_rows

    def _purge(self) -> None:
        """Removes some rows of deleted jobs; the rest in the sweeps to come."""
        with self._store.reading() as session:
            job_ids = deleted_jobs(session)
        for job_id in job_ids[:_PURGES_PER_SWEEP]:
            for _ in range(_PURGES_PER_SWEEP // min(len(job_ids), _PURGES_PER_SWEEP)):
                with self._store.writing() as session:
                    purge_rows(session, job_id, _PURGED_AT_ONCE)

    def _find_in(
        self, session: Session, table: type[WorkRow] | type[ImageSetRow], now: float
    ) -> list[Row]:
        """Rows whose lease is over, and such as were handed out a lease ago and not claimed."""
        expired = and_(table.state == states.RUNNING, table.lease_until < now)
        unclaimed = and_(
            table.state == states.QUEUED, table.queued_at + self._settings.lease_s < now
        )
        statement = select(table).where(_IN_FLIGHT[table], or_(expired, unclaimed))
        return list(session.scalars(statement))

    def _without_waiting(self, rows: Sequence[Row]) -> list[Row]:
        """Leaves out what still waits in a queue: for as long as it takes, while threads are busy.

        A message that has just been taken out looks as if it were lost. It costs nothing: what is
        claimed, or handed out again, by the one is refused to the other.
        """
        stages = {_stage_of(row) for row in rows if row.state == states.QUEUED}
        try:
            waiting = {stage: self._waiting(stage) for stage in stages}
        except Unavailable as error:
            log.warning("nobody knows which messages are lost: %s", error.message)
            return [row for row in rows if row.state == states.RUNNING]
        return [
            row
            for row in rows
            if row.state == states.RUNNING
            or Ticket(row.id, row.fence) not in waiting[_stage_of(row)]
        ]

    def _put_back(
        self, session: Session, table: type[WorkRow] | type[ImageSetRow], ids: Sequence[int]
    ) -> int:
        now = self._store.now(session)
        tally = Tally(session)
        doomed: list[Row] = []
        num_rows = 0
        for row in read_rows(session, table, ids).values():
            if row.state == states.RUNNING and row.lease_until < now:
                row.losses += 1
                row.alone = row.alone or row.losses >= ALONE_AFTER_LOSSES
                if row.losses >= MAX_LOSSES:
                    doomed.append(row)
                    continue
            elif row.state != states.QUEUED or row.queued_at + self._settings.lease_s >= now:
                continue
            move(tally, row, states.READY)
            num_rows += 1
        self._give_up(session, tally, doomed, now)
        tally.write()
        return num_rows

    def _give_up(self, session: Session, tally: Tally, doomed: Sequence[Row], now: float) -> None:
        for row in doomed:
            error = Internal(f"Its worker went away {row.losses} times while working on it.")
            if isinstance(row, ImageSetRow):
                row.state = states.FAILED
                row.error = error.message
                end_sets(session, tally, [row])
                continue
            job = read_job(session, row.job_id)
            assert job is not None
            if JobState(job.state).ended:
                tally.move(row, states.CANCELLED)
            else:
                end_in_failure(session, tally, job, row.stage, [(row, error)], now)


def _stage_of(row: Row) -> str:
    return row.stage if isinstance(row, WorkRow) else "synthesize"
