"""Many rows in one statement.

PostgreSQL gets all rows as one JSON text: a task is then one statement instead of one for each row,
which costs both sides several times as much. SQLite runs a statement for each row at little cost,
as it lives in the process.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    FromClause,
    LargeBinary,
    Table,
    Text,
    any_,
    bindparam,
    cast,
    column,
    func,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session

from dnd_services.coordinator.models import Base

Values = dict[str, Any]
_KEY = "key_"
"""Before the name of a column of the primary key, where it chooses the row to be changed."""


def insert_rows(
    session: Session,
    table: type[Base],
    rows: Sequence[Values],
    *,
    ignore: bool = False,
    replace: Sequence[str] = (),
    add: Sequence[str] = (),
) -> None:
    """Inserts rows, each of the same columns; the others get their defaults.

    Args:
        ignore: A row that is there already stays as it is.
        replace: Columns that a row of the same primary key gets anew.
        add: Columns that are added to those of a row of the same primary key.
    """
    if not rows:
        return
    target = _table_of(table)
    statement: Any
    if _is_postgresql(session):
        given = _given(target, rows)
        # Rows that wait for each other's locks take them in the order in which they are given.
        chosen = select(*(_value(given, target.c[name]) for name in rows[0]))
        statement = postgresql.insert(target).from_select(list(rows[0]), chosen)
    else:
        statement = sqlite.insert(target)
    if ignore:
        statement = statement.on_conflict_do_nothing()
    elif replace or add:
        new = {name: statement.excluded[name] for name in replace}
        new |= {name: target.c[name] + statement.excluded[name] for name in add}
        keys = [column.name for column in target.primary_key]
        statement = statement.on_conflict_do_update(index_elements=keys, set_=new)
    session.execute(statement, None if _is_postgresql(session) else list(rows))


def update_rows(session: Session, table: type[Base], rows: Sequence[Values]) -> None:
    """Changes rows: each names its primary key and the columns that get a new value."""
    target = _table_of(table)
    keys = [column.name for column in target.primary_key]
    alike: defaultdict[tuple[str, ...], list[Values]] = defaultdict(list)
    for row in rows:
        alike[tuple(row)].append(row)
    for names, some in alike.items():
        changed = [name for name in names if name not in keys]
        statement = update(target)
        if _is_postgresql(session):
            given = _given(target, some)
            statement = statement.where(*(target.c[key] == given.c[key] for key in keys))
            new = {name: _value(given, target.c[name]) for name in changed}
            session.execute(statement.values(new))
        else:
            statement = statement.where(
                *(target.c[key] == bindparam(_KEY + key) for key in keys)
            ).values({name: bindparam(name) for name in changed})
            session.execute(
                statement,
                [
                    {_KEY + name if name in keys else name: row[name] for name in names}
                    for row in some
                ],
            )


def among(
    session: Session, attribute: InstrumentedAttribute[Any], values: Sequence[Any]
) -> ColumnElement[bool]:
    """Whether a column has one of some values, however many: PostgreSQL gets them as one."""
    if not _is_postgresql(session):
        return attribute.in_(values)
    # Not as text that is cast: the planner would not know that it is as good as constant, and would
    # look through all rows of a job for them.
    return attribute == any_(bindparam(None, list(values), postgresql.ARRAY(attribute.type)))


def _is_postgresql(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"


def _table_of(table: type[Base]) -> Table:
    found = table.__table__
    assert isinstance(found, Table)
    return found


def _given(target: Table, rows: Sequence[Values]) -> FromClause:
    """The rows as a table of that name: PostgreSQL reads them out of one JSON text."""
    columns: list[Column[Any]] = [target.c[name] for name in rows[0]]
    text = json.dumps([{c.name: _plain(c, row[c.name]) for c in columns} for row in rows])
    shown = (column(c.name, Text() if _is_binary(c) else c.type) for c in columns)
    table = func.json_to_recordset(cast(bindparam("rows_", text, Text()), JSON()))
    return table.table_valued(*shown).render_derived(name="given", with_types=True)


def _is_binary(column: Column[Any]) -> bool:
    return isinstance(column.type, LargeBinary)


def _plain(column: Column[Any], value: Any) -> Any:
    """A value as JSON holds it."""
    return b64encode(value).decode() if _is_binary(column) else value


def _value(given: FromClause, column: Column[Any]) -> ColumnElement[Any]:
    """A column of the rows that were given, as the table holds it."""
    value: ColumnElement[Any] = given.c[column.name]
    return func.decode(value, "base64") if _is_binary(column) else value
