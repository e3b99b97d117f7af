"""Handing out work so that exactly one worker writes it.

A ticket is an id and a fence. The fence goes up whenever the dispatcher hands the row out, so a
message that was delivered twice, or comes back from a worker that everybody thought dead, carries a
ticket that nothing is open for: claiming with it gives nothing, writing with it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from dnd.jobs import JobState
from dnd_services.coordinator import states
from dnd_services.coordinator.models import (
    JOB_SET_OPEN,
    Claimable,
    ImageSetRow,
    JobRow,
    JobSetRow,
    WorkRow,
)
from dnd_services.coordinator.store.counters import Tally

C = TypeVar("C", bound=Claimable)


@dataclass(frozen=True)
class Ticket:
    """The right to work on one row, once."""

    id: int
    fence: int


def move(tally: Tally, row: Claimable, state: str) -> None:
    """Sets a row's state; work is counted by state, image sets by job when they end."""
    if isinstance(row, WorkRow):
        tally.move(row, state)
    else:
        row.state = state


def read_rows(
    session: Session, table: type[C], ids: Iterable[int], *, lock: bool = True
) -> dict[int, C]:
    """Rows by id, locked until the end of the transaction where the database locks rows."""
    statement = select(table).where(table.id.in_(list(ids))).order_by(table.id)
    if lock:
        statement = statement.with_for_update()
    return {row.id: row for row in session.scalars(statement)}


def queue(
    session: Session, table: type[C], ids: Sequence[int], task: str, now: float
) -> list[Ticket]:
    """READY -> QUEUED: hands rows out under a new fence. Publish the tickets after the commit."""
    tally = Tally(session)
    tickets = []
    for row in read_rows(session, table, ids).values():
        if row.state != states.READY:
            continue
        move(tally, row, states.QUEUED)
        row.fence += 1
        row.dispatches += 1
        row.task = task
        row.queued_at = now
        tickets.append(Ticket(row.id, row.fence))
    tally.write()
    return tickets


def unqueue(session: Session, table: type[C], tickets: Sequence[Ticket], not_before: float) -> None:
    """QUEUED -> READY for tickets that could not be published."""
    tally = Tally(session)
    rows = read_rows(session, table, [t.id for t in tickets])
    for ticket in tickets:
        row = rows.get(ticket.id)
        if row and row.state == states.QUEUED and row.fence == ticket.fence:
            move(tally, row, states.READY)
            row.not_before = not_before
    tally.write()


def take(
    session: Session, table: type[C], tickets: Sequence[Ticket], owner: str, until: float
) -> list[C]:
    """QUEUED -> RUNNING for the tickets that are still good; the others are duplicates."""
    tally = Tally(session)
    rows = read_rows(session, table, [t.id for t in tickets])
    taken = []
    for ticket in tickets:
        row = rows.get(ticket.id)
        if row is None or row.state != states.QUEUED or row.fence != ticket.fence:
            continue
        move(tally, row, states.RUNNING)
        row.owner = owner
        row.lease_until = until
        taken.append(row)
    tally.write()
    return taken


def renew(session: Session, table: type[C], tickets: Sequence[Ticket], until: float) -> None:
    """Prolongs the leases of what is still held; what is not will be refused when it is written."""
    rows = read_rows(session, table, [t.id for t in tickets])
    for ticket in tickets:
        row = rows.get(ticket.id)
        if row and is_held(row, ticket):
            row.lease_until = until


def is_wanted(session: Session, table: type[C], tickets: Sequence[Ticket]) -> bool:
    """Whether any job that has not been cancelled needs what the tickets are for."""
    ids = [ticket.id for ticket in tickets]
    if table is ImageSetRow:
        needed = exists().where(JobSetRow.set_id.in_(ids), JOB_SET_OPEN)
    else:
        needed = exists().where(
            WorkRow.id.in_(ids),
            JobRow.id == WorkRow.job_id,
            JobRow.state != JobState.CANCELLED.value,
        )
    return bool(session.scalar(select(needed)))


def is_held(row: Claimable, ticket: Ticket) -> bool:
    """Whether a write with `ticket` is to be accepted."""
    return row.state == states.RUNNING and row.fence == ticket.fence
