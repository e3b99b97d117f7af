"""Tables read some rows at a time, so that no read of the record is long."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, select
from sqlalchemy.orm import InstrumentedAttribute

from dnd_services.coordinator.store.engine import Store

ROWS_AT_ONCE = 5000


def rows_in_pages(
    store: Store,
    before_page: Callable[[], None],
    key: InstrumentedAttribute[Any],
    *columns: InstrumentedAttribute[Any],
    where: Sequence[ColumnElement[bool]] = (),
) -> Iterator[Row[*tuple[Any, ...]]]:
    """(key, *columns) of the rows of a table, by `key`, each page in a transaction of its own.

    Args:
        before_page: Called before each page.
        key: What tells apart the rows that fulfil `where`.
    """
    after: tuple[ColumnElement[bool], ...] = ()
    while True:
        before_page()
        statement = select(key, *columns).where(*where, *after).order_by(key).limit(ROWS_AT_ONCE)
        with store.reading() as session:
            rows = session.execute(statement).all()
        yield from rows
        if len(rows) < ROWS_AT_ONCE:
            return
        after = (key > rows[-1][0],)
