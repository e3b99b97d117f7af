"""Handing out work so that exactly one worker writes it.

A ticket is an id and a fence. The fence goes up whenever the dispatcher hands the row out, so a
message that was delivered twice, or comes back from a worker that everybody thought dead, carries a
ticket that nothing is open for: claiming with it gives nothing, writing with it is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, exists, select, update
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
from dnd_services.coordinator.store.bulk import among
from dnd_services.coordinator.store.counters import Tally

C = TypeVar("C", bound=Claimable)

_ROWS_PER_STATEMENT = 1000


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


def move_held(tally: Tally, rows: Sequence[WorkRow], state: str, **values: Any) -> None:
    """Moves RUNNING rows in one statement; they stay as they were claimed, should it not commit."""
    for row in rows:
        tally.add_move(row.job_id, row.stage, row.scope, states.RUNNING, state)
    _update(tally.session, WorkRow, [row.id for row in rows], state=state, **values)


def _update(session: Session, table: type[C], ids: Sequence[int], **values: Any) -> None:
    """Sets the same values in many rows that are locked already."""
    for start in range(0, len(ids), _ROWS_PER_STATEMENT):
        some = ids[start : start + _ROWS_PER_STATEMENT]
        session.execute(
            update(table).where(among(session, table.id, some)).values(**values),
            execution_options={"synchronize_session": False},
        )


def read_rows(
    session: Session, table: type[C], ids: Iterable[int], *, lock: bool = True
) -> dict[int, C]:
    """Rows by id, locked until the end of the transaction where the database locks rows."""
    statement = select(table).where(among(session, table.id, list(ids))).order_by(table.id)
    if lock:
        statement = statement.with_for_update()
    return {row.id: row for row in session.scalars(statement)}


def queue(
    session: Session, table: type[C], ids: Sequence[int], task: str, now: float
) -> list[Ticket]:
    """READY -> QUEUED: hands rows out under a new fence. Publish the tickets after the commit."""
    tally = Tally(session)
    moved = _change(
        tally,
        table,
        ids,
        states.READY,
        state=states.QUEUED,
        fence=table.fence + 1,
        dispatches=table.dispatches + 1,
        task=task,
        queued_at=now,
    )
    tally.write()
    return sorted(moved, key=lambda ticket: ticket.id)


def _columns(table: type[C]) -> list[Any]:
    """What a move needs to know of a row."""
    columns: list[Any] = [table.id, table.fence, table.state]
    if table is WorkRow:
        columns += [WorkRow.job_id, WorkRow.stage, WorkRow.scope]
    return columns


def _locked(session: Session, table: type[C], ids: Sequence[int]) -> Sequence[Any]:
    """Those columns of rows, which are locked, ascending by id."""
    statement = (
        select(*_columns(table)).where(among(session, table.id, list(ids))).order_by(table.id)
    )
    return session.execute(statement.with_for_update()).all()


def unqueue(session: Session, table: type[C], tickets: Sequence[Ticket], not_before: float) -> None:
    """QUEUED -> READY for tickets that could not be published."""
    _move_queued(session, table, tickets, states.READY, not_before=not_before)


def take(
    session: Session, table: type[C], tickets: Sequence[Ticket], owner: str, until: float
) -> list[Ticket]:
    """QUEUED -> RUNNING for the tickets that are still good; the others are duplicates."""
    return _move_queued(session, table, tickets, states.RUNNING, owner=owner, lease_until=until)


def _move_queued(
    session: Session, table: type[C], tickets: Sequence[Ticket], state: str, **values: Any
) -> list[Ticket]:
    """Moves what is QUEUED under the fence of its ticket; those tickets, in their order."""
    ids: defaultdict[int, list[int]] = defaultdict(list)
    for ticket in tickets:
        ids[ticket.fence].append(ticket.id)
    tally = Tally(session)
    moved: set[Ticket] = set()
    for fence, some in sorted(ids.items()):  # one, unless something was handed out again
        same = table.fence == fence
        moved |= _change(tally, table, some, states.QUEUED, same, state=state, **values)
    tally.write()
    return [ticket for ticket in dict.fromkeys(tickets) if ticket in moved]


def _change(
    tally: Tally,
    table: type[C],
    ids: Sequence[int],
    old: str,
    *where: ColumnElement[bool],
    state: str,
    **values: Any,
) -> set[Ticket]:
    """Moves those rows that are in the state `old`; tickets for them, as they are then."""
    statement = (
        update(table)
        .where(among(tally.session, table.id, ids), table.state == old, *where)
        .values(state=state, **values)
        .returning(*_columns(table))
        .execution_options(synchronize_session=False)
    )
    rows = tally.session.execute(statement).all()
    for row in rows if table is WorkRow else ():
        tally.add_move(row.job_id, row.stage, row.scope, old, state)
    return {Ticket(row.id, row.fence) for row in rows}


def read_taken(session: Session, table: type[C], tickets: Sequence[Ticket]) -> list[C]:
    """The rows of tickets that have been taken, in their order, unless somebody else has them."""
    rows = read_rows(session, table, [ticket.id for ticket in tickets], lock=False)
    return [
        row
        for ticket in tickets
        if (row := rows.get(ticket.id))
        and row.state == states.RUNNING
        and row.fence == ticket.fence
    ]


def renew(session: Session, table: type[C], tickets: Sequence[Ticket], until: float) -> None:
    """Prolongs the leases of what is still held; what is not will be refused when it is written."""
    _update(session, table, sorted(find_held(session, table, tickets)), lease_until=until)


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


def find_held(session: Session, table: type[C], tickets: Sequence[Ticket]) -> set[int]:
    """Ids of the tickets that a write is to be accepted for; their rows are locked."""
    fences = {ticket.id: ticket.fence for ticket in tickets}
    return {
        row.id
        for row in _locked(session, table, list(fences))
        if row.state == states.RUNNING and row.fence == fences[row.id]
    }
