"""Many rows in one statement.

PostgreSQL gets the values of all rows by columns, as arrays: a task is then one statement instead
of one for each row, which costs both sides several times as much. SQLite runs a statement for each
row at little cost, as it lives in the process.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    FromClause,
    Table,
    Text,
    any_,
    bindparam,
    cast,
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
        given = _by_columns(target, rows)
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
            given = _by_columns(target, some)
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
    session: Session, column: InstrumentedAttribute[Any], values: Sequence[Any]
) -> ColumnElement[bool]:
    """Whether a column has one of some values, however many: PostgreSQL gets them as one."""
    if not _is_postgresql(session):
        return column.in_(values)
    array = bindparam(None, list(values), postgresql.ARRAY(column.type))
    return column == any_(array)


def _is_postgresql(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"


def _table_of(table: type[Base]) -> Table:
    found = table.__table__
    assert isinstance(found, Table)
    return found


def _by_columns(target: Table, rows: Sequence[Values]) -> FromClause:
    """The rows as a table named `given`."""
    columns: list[Column[Any]] = [target.c[name] for name in rows[0]]
    arrays = [
        bindparam(
            f"given_{column.name}",
            [_plain(column, row[column.name]) for row in rows],
            postgresql.ARRAY(Text() if isinstance(column.type, JSON) else column.type),
        )
        for column in columns
    ]
    names = (column.name for column in columns)
    return func.unnest(*arrays).table_valued(*names).render_derived(name="given")


def _plain(column: Column[Any], value: Any) -> Any:
    """A value as the database's arrays hold it: JSON as its text."""
    return json.dumps(value) if isinstance(column.type, JSON) else value


def _value(given: FromClause, column: Column[Any]) -> ColumnElement[Any]:
    """A column of the rows that were given, in the type of the table's column."""
    value: ColumnElement[Any] = given.c[column.name]
    return cast(value, JSON()) if isinstance(column.type, JSON) else value
