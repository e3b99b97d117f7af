"""Who leads, and which workers are there."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from dnd_services.coordinator.models import LeaseRow, ReplicaRow
from dnd_services.coordinator.store.bulk import insert_rows

LEADER = "dispatcher"
_FORGET_S = 600.0


def lead(session: Session, owner: str, now: float, ttl_s: float) -> bool:
    """Becomes or stays leader; false while somebody else's lease runs."""
    insert_rows(session, LeaseRow, [{"name": LEADER, "owner": owner, "until": 0.0}], ignore=True)
    row = session.get_one(LeaseRow, LEADER, with_for_update=True)
    if row.owner != owner and row.until > now:
        return False
    row.owner = owner
    row.until = now + ttl_s
    return True


def step_down(session: Session, owner: str) -> None:
    """Lets a standby lead at once."""
    row = session.get(LeaseRow, LEADER, with_for_update=True)
    if row is not None and row.owner == owner:
        row.until = 0.0


def beat(session: Session, replica: str, stages: Sequence[str], threads: int, now: float) -> None:
    """A worker process says that it is there."""
    started = {"threads": threads, "started_at": now, "seen_at": now}
    rows = [{"id": replica, "stage": stage, **started} for stage in sorted(stages)]
    insert_rows(session, ReplicaRow, rows, replace=["seen_at"])


def leave(session: Session, replica: str) -> None:
    """A worker process ends."""
    session.execute(delete(ReplicaRow).where(ReplicaRow.id == replica))


def forget_replicas(session: Session, now: float) -> None:
    """Drops the rows of workers that have long been silent."""
    session.execute(delete(ReplicaRow).where(ReplicaRow.seen_at < now - _FORGET_S))


def read_capacity(session: Session, now: float, silent_s: float) -> dict[str, int]:
    """Threads of the live workers by stage."""
    statement = (
        select(ReplicaRow.stage, func.sum(ReplicaRow.threads))
        .where(ReplicaRow.seen_at > now - silent_s)
        .group_by(ReplicaRow.stage)
    )
    return {stage: int(threads) for stage, threads in session.execute(statement)}
