from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from coordinator_desk import Desk
from old_records import check_migrated, copy_rows, make_first_tables
from sqlalchemy import text

from dnd.errors import BadSetting
from dnd.jobs import JobSpec, LayerUnits
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


def test_jobs_of_the_first_version_go_on_after_all_migrations(
    desk: Desk, spec: JobSpec, tmp_path: Path
) -> None:
    spec = replace(spec, layers=(LayerUnits("features.conv", (12, 13, 14)),))
    ended = desk.create(spec, "ended")
    desk.run_to_end(ended)
    going_on = desk.create(replace(spec, seed=8), "going on")
    task = desk.run_to_stage("summarize")
    desk.published.append(task)
    old = Store(f"sqlite:///{tmp_path}/old.db", desk.clock)
    make_first_tables(old)
    copied = copy_rows(desk.store, old)
    migrate(old)
    check_migrated(old, copied)

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
