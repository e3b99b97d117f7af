"""Counters per (job, name, state): what a job's progress is read from, and what its end is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TypeAlias

from sqlalchemy import select
from sqlalchemy.orm import Session

from dnd_services.coordinator.models import CounterRow, WorkRow
from dnd_services.coordinator.states import counter_name
from dnd_services.coordinator.store.bulk import insert_rows

Counters: TypeAlias = dict[str, dict[str, int]]
"""Counters of a job: name to state to number."""
UNIT = "unit"
"""Counter of units by `dnd.jobs.UnitState`; the others are named by stage."""
SETTLED = "SETTLED"
"""State of the counter of units that ended at stage exemplars, as nothing is to be labelled."""


class Tally:
    """Collects the changes of one transaction and writes each counter once."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._deltas: defaultdict[tuple[str, str, str], int] = defaultdict(int)

    def add(self, job_id: str, name: str, state: str, num: int = 1) -> None:
        """Counts `num` more things in a state."""
        self._deltas[job_id, name, state] += num

    def move(self, work: WorkRow, state: str) -> None:
        """Sets the state of `work` and counts it there."""
        self.count_move(work, state)
        work.state = state

    def count_move(self, work: WorkRow, state: str) -> None:
        """Counts `work` in a state that it gets by other means."""
        self.add_move(work.job_id, work.stage, work.scope, work.state, state)

    def add_move(self, job_id: str, stage: str, scope: str, old: str, new: str) -> None:
        """Counts work in its new state and no longer in its old one."""
        name = counter_name(stage, scope)
        self.add(job_id, name, old, -1)
        self.add(job_id, name, new)

    def write(self) -> None:
        """Writes what was collected, in one order for all transactions, so that none deadlock."""
        rows = [
            {"job_id": job_id, "name": name, "state": state, "num": num}
            for (job_id, name, state), num in sorted(self._deltas.items())
            if num
        ]
        self._deltas.clear()
        insert_rows(self.session, CounterRow, rows, add=["num"])


def read_counters(session: Session, job_id: str) -> Counters:
    """All counters of a job."""
    return read_counters_of(session, [job_id])[job_id]


def read_counters_of(session: Session, job_ids: Sequence[str]) -> dict[str, Counters]:
    """All counters of some jobs, by id."""
    found: dict[str, Counters] = {job_id: {} for job_id in job_ids}
    columns = select(CounterRow.job_id, CounterRow.name, CounterRow.state, CounterRow.num)
    for job_id, name, state, num in session.execute(columns.where(CounterRow.job_id.in_(job_ids))):
        found[job_id].setdefault(name, {})[state] = num
    return found
