"""A record as the first version of this project made it, with the jobs of a record of now."""

from __future__ import annotations

from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, insert, select, text

from dnd_services.coordinator import migrate as migrate_module
from dnd_services.coordinator.models import Base
from dnd_services.coordinator.store import Store

Rows = dict[str, list[dict[str, Any]]]

FIRST = "0001"


def make_first_tables(store: Store) -> None:
    """The tables of the first revision, empty."""
    config = migrate_module._config()
    with store.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, FIRST)
        connection.commit()


def copy_rows(source: Store, target: Store) -> Rows:
    """Puts the rows of one record into the tables of an older one, as far as it has the columns."""
    old = MetaData()
    old.reflect(target.engine)
    copied: Rows = {}
    for table in old.sorted_tables:
        if table.name == "alembic_version":
            continue
        rows = read_rows(source, table.name, [column.name for column in table.columns])
        with target.engine.begin() as connection:
            if rows:
                connection.execute(insert(table), rows)
                if not target.is_sqlite and table.name in ("work", "image_set"):
                    number = f"pg_get_serial_sequence('{table.name}', 'id')"
                    last = f"SELECT max(id) FROM {table.name}"
                    connection.execute(text(f"SELECT setval({number}, ({last}))"))
        copied[table.name] = rows
    return copied


def read_rows(store: Store, name: str, columns: list[str]) -> list[dict[str, Any]]:
    """All rows of a table, in the order of their keys."""
    table = Base.metadata.tables[name]
    statement = select(*(table.c[column] for column in columns)).order_by(*table.primary_key)
    with store.engine.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(statement)]


def check_migrated(store: Store, copied: Rows) -> None:
    """The tables are those of the models, and every value is what it was."""
    assert all(copied[name] for name in ("job", "job_layer", "unit", "work", "image_set"))
    assert all(copied[name] for name in ("job_set", "counter", "replica", "stage_average"))
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    for name, rows in copied.items():
        if rows:
            assert read_rows(store, name, list(rows[0])) == rows, name
