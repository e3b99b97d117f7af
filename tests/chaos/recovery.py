"""What a fault has struck, and how long it takes until all of that has gone on.

What a worker holds that is alive and renews its lease is not struck, nor is what waits in a queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from coordinator_stack import CoordinatorStack, wait_until
from sqlalchemy import ColumnElement, TextClause, select

from dnd_services.coordinator import states
from dnd_services.coordinator.models import (
    SET_IN_FLIGHT,
    WORK_IN_FLIGHT,
    WORK_READY,
    ImageSetRow,
    WorkRow,
)
from dnd_services.coordinator.store.claims import Ticket
from dnd_services.coordinator.waiting import Waiting

Row: TypeAlias = WorkRow | ImageSetRow
Where: TypeAlias = "Mapping[type[Row], ColumnElement[bool] | TextClause]"

_TABLES = (WorkRow, ImageSetRow)
_IN_FLIGHT: Where = {WorkRow: WORK_IN_FLIGHT, ImageSetRow: SET_IN_FLIGHT}
_READY: Where = {WorkRow: WORK_READY, ImageSetRow: ImageSetRow.state == states.READY}

STAGES_OF = {
    "activations": ("index", "exemplars", "score", "calibrate"),
    "captioner": ("caption",),
    "summarizer": ("summarize",),
    "synthesizer": ("synthesize",),
    "scorer": ("score",),
}
"""The stages that call a service."""


@dataclass(frozen=True)
class Struck:
    """What a fault has struck.

    Attributes:
        since: The moment that recovery is counted from, by time.monotonic.
        num_rows: Work and image sets that it has struck.
        has_gone_on: Whether all of them have ended or have been handed out again.
    """

    since: float
    num_rows: int
    has_gone_on: Callable[[], bool]


def struck(stack: CoordinatorStack, rows: Collection[Row], since: float | None = None) -> Struck:
    """Those rows, until each has ended or been handed out again; of a message, been claimed."""
    before = {_key(row): row for row in rows}

    def has_gone_on() -> bool:
        ids = {table: [row.id for row in rows if isinstance(row, table)] for table in _TABLES}
        for row in _rows(stack, {table: table.id.in_(some) for table, some in ids.items()}):
            old = before[_key(row)]
            was_taken = old.state == states.QUEUED and row.state == states.RUNNING
            if row.fence == old.fence and row.state in states.OPEN and not was_taken:
                return False
        return True

    return Struck(time.monotonic() if since is None else since, len(rows), has_gone_on)


def wait_for_recovery(struck: Struck) -> float:
    """Seconds until all that was struck has gone on."""
    wait_until(struck.has_gone_on, "what was struck has gone on")
    return time.monotonic() - struck.since


def held_by(stack: CoordinatorStack, pid: int) -> list[Row]:
    """What a worker process has claimed and not ended."""
    running = [row for row in _rows(stack, _IN_FLIGHT) if row.state == states.RUNNING]
    return [row for row in running if row.owner.split(":")[1] == str(pid)]


def lost_messages(stack: CoordinatorStack) -> list[Row]:
    """What is QUEUED and waits in no queue; somebody may just have taken it out of one."""
    queued = [row for row in _rows(stack, _IN_FLIGHT) if row.state == states.QUEUED]
    waiting = Waiting(stack.redis_url)
    tickets = {stage: waiting.tickets(stage) for stage in set(map(_stage, queued))}
    waiting.close()
    return [row for row in queued if Ticket(row.id, row.fence) not in tickets[_stage(row)]]


def asked_of(stack: CoordinatorStack, service: str) -> list[Row]:
    """What a service is being asked for, and what it has been asked for in vain."""
    return [
        row
        for row in (*_rows(stack, _IN_FLIGHT), *_rows(stack, _READY))
        if _stage(row) in STAGES_OF[service]
        and (row.state == states.RUNNING or (row.state == states.READY and row.error))
    ]


def handed_out_since(stack: CoordinatorStack, at: float) -> list[Row]:
    """What has been handed out after a moment (time.time) and is still with somebody."""
    return [row for row in _rows(stack, _IN_FLIGHT) if row.queued_at > at]


def _rows(stack: CoordinatorStack, where: Where) -> list[Row]:
    with stack.store.reading() as session:
        return [
            row
            for table, condition in where.items()
            for row in session.scalars(select(table).where(condition))
        ]


def _key(row: Row) -> tuple[str, int]:
    return row.__tablename__, row.id


def _stage(row: Row) -> str:
    return row.stage if isinstance(row, WorkRow) else "synthesize"
