"""Results of stages by key: computed once, there for all that ask the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from dnd_services.coordinator.models import CounterRow, ResultRow
from dnd_services.coordinator.store.bulk import among, insert_rows
from dnd_services.coordinator.store.counters import Tally

_ROWS_PER_STATEMENT = 500
COMPUTED, REUSED = "computed", "reused"
"""Counters of a job: by stage, results that were computed for it, and that were there already."""
BANK_RESULT = "bank"
"""What the measured bank of a job is counted as there: it is no stage of a unit."""


def find_results(session: Session, keys: Sequence[str]) -> dict[str, str]:
    """References of results by key, of those that there are."""
    found: dict[str, str] = {}
    for start in range(0, len(keys), _ROWS_PER_STATEMENT):
        some = keys[start : start + _ROWS_PER_STATEMENT]
        statement = select(ResultRow.key, ResultRow.ref).where(among(session, ResultRow.key, some))
        found.update((key, ref) for key, ref in session.execute(statement))
    return found


def keep_results(session: Session, refs: Mapping[str, str]) -> None:
    """Writes references of results by key; one that is known already is replaced."""
    rows = [{"key": key, "ref": ref} for key, ref in sorted(refs.items())]
    insert_rows(session, ResultRow, rows, replace=["ref"])


def forget_results(session: Session, keys: Sequence[str]) -> None:
    """Drops results whose artifacts are gone, or go."""
    session.execute(delete(ResultRow).where(ResultRow.key.in_(keys)))


def count_results(
    tally: Tally, job_id: str, stage: str, num_computed: int, num_reused: int
) -> None:
    """Counts where the results of a stage came from."""
    tally.add(job_id, COMPUTED, stage, num_computed)
    tally.add(job_id, REUSED, stage, num_reused)


def read_reuse(session: Session) -> dict[tuple[str, str], int]:
    """Results by (stage, COMPUTED or REUSED), of all jobs that there are."""
    statement = (
        select(CounterRow.state, CounterRow.name, func.sum(CounterRow.num))
        .where(CounterRow.name.in_((COMPUTED, REUSED)))
        .group_by(CounterRow.state, CounterRow.name)
    )
    return {(stage, how): int(num) for stage, how, num in session.execute(statement)}
