from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from coordinator_desk import Clock, Desk
from sqlalchemy import MetaData, text

from dnd.errors import BadSetting
from dnd.jobs import JobSpec, LayerUnits
from dnd_services.coordinator import migrate as migrate_module
from dnd_services.coordinator.migrate import migrate, wait_for_tables
from dnd_services.coordinator.models import Base
from dnd_services.coordinator.store import Store


def test_migrations_make_the_tables_of_the_models(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/record.db")
    migrate(store)
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_migrations_run_once_when_several_processes_start_together(tmp_path: Path) -> None:
    stores = [Store(f"sqlite:///{tmp_path}/record.db") for _ in range(4)]
    errors: list[Exception] = []

    def start(store: Store) -> None:
        try:
            migrate(store)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=start, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    wait_for_tables(stores[0], timeout_s=1)


def test_start_is_refused_when_a_newer_version_made_the_tables(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/record.db")
    migrate(store)
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(BadSetting, match="revision 9999"):
        migrate(store)


def test_worker_says_what_is_missing_when_there_is_no_coordinator(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="start the coordinator first"):
        wait_for_tables(Store(f"sqlite:///{tmp_path}/record.db"), timeout_s=0.1)


@pytest.mark.parametrize("url", ["sqlite://", "nosuch://x/y", "sqlite:////no/such/folder/x.db"])
def test_store_is_refused_when_its_url_is_bad(url: str) -> None:
    with pytest.raises(BadSetting, match="DND_DATABASE"):
        migrate(Store(url))


def make_first_tables(path: Path, clock: Clock) -> Store:
    """A record as the first version of this project made it."""
    store = Store(f"sqlite:///{path}", clock)
    config = migrate_module._config()
    with store.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.commit()
    return store


def copy_rows(source: Store, target: Store) -> dict[str, list[dict[str, Any]]]:
    """Puts the rows of one record into the tables of another, as far as those have columns."""
    tables = MetaData()
    tables.reflect(target.engine)
    copied: dict[str, list[dict[str, Any]]] = {}
    for table in tables.sorted_tables:
        if table.name == "alembic_version":
            continue
        columns = ", ".join(column.name for column in table.columns)
        with source.engine.connect() as connection:
            found = connection.execute(text(f"SELECT {columns} FROM {table.name}"))
            rows = [dict(row._mapping) for row in found]
        places = ", ".join(f":{column.name}" for column in table.columns)
        with target.engine.begin() as connection:
            if rows:
                connection.execute(
                    text(f"INSERT INTO {table.name} ({columns}) VALUES ({places})"), rows
                )
        copied[table.name] = rows
    return copied


def test_jobs_of_the_first_version_go_on_after_all_migrations(
    desk: Desk, spec: JobSpec, tmp_path: Path
) -> None:
    spec = replace(spec, layers=(LayerUnits("features.conv", (12, 13, 14)),))
    ended = desk.create(spec, "ended")
    desk.run_to_end(ended)
    going_on = desk.create(replace(spec, seed=8), "going on")
    task = desk.run_to_stage("summarize")
    desk.published.append(task)
    old = make_first_tables(tmp_path / "old.db", desk.clock)
    copied = copy_rows(desk.store, old)
    assert all(copied[name] for name in ("job", "job_layer", "unit", "work", "image_set"))
    assert all(copied[name] for name in ("job_set", "counter", "replica", "stage_average"))

    migrate(old)
    with old.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        for name, rows in copied.items():
            columns = ", ".join(rows[0]) if rows else "1"
            found = connection.execute(text(f"SELECT {columns} FROM {name}"))
            assert [dict(row._mapping) for row in found] == rows, name

    new = Desk(old, desk.fakes, desk.services, desk.settings, desk.clock)
    new.published += desk.published
    assert new.records(ended) == desk.records(ended)
    for one in (new, desk):
        one.run_to_end(going_on)
    assert new.records(going_on) == desk.records(going_on)
    new.check_counters(going_on)
    new.delete(ended)
    new.sweep_until_purged()
    old.close()
