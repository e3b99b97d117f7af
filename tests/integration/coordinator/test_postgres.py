"""The same coordinator on PostgreSQL: a server of its own, skipped where there is none to start."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from coordinator_desk import SMALL, check_counters, open_desk
from coordinator_stack import SPEC, CoordinatorStack, finish, records, start_stack, wait_until
from old_records import check_migrated, copy_rows, make_first_tables
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from dnd.errors import BadSetting
from dnd.jobs import Garbage, JobState, LayerUnits
from dnd.stack.backup import copy_artifacts
from dnd.testing import Fakes, start_fakes
from dnd.testing.postgres import PostgresServer, find_postgres, start_postgres
from dnd_services.coordinator import garbage, states
from dnd_services.coordinator.migrate import migrate
from dnd_services.coordinator.models import (
    Base,
    CounterRow,
    ImageSetRow,
    LabelVectorRow,
    ResultRow,
    UnitRow,
    WorkRow,
)
from dnd_services.coordinator.store import Store
from dnd_services.coordinator.store.bulk import among, insert_rows, update_rows
from dnd_services.coordinator.store.counters import Tally, read_counters
from dnd_services.coordinator.store.search import forget_vectors, list_vectors, write_vectors


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    try:
        find_postgres()
    except BadSetting as missing:
        pytest.skip(missing.message)
    with start_postgres() as server:
        yield server


@pytest.fixture
def url(server: PostgresServer) -> str:
    """A database of its own, empty."""
    return make_database(server)


def make_database(server: PostgresServer) -> str:
    """Makes an empty database; its URL."""
    store = Store(server.url)
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        number = connection.scalar(text("SELECT count(*) FROM pg_database"))
        connection.execute(text(f"CREATE DATABASE record{number}"))
    store.close()
    return server.url.rpartition("/")[0] + f"/record{number}"


def test_migrations_make_the_tables_of_the_models_when_several_processes_start(url: str) -> None:
    stores = [Store(url) for _ in range(4)]
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
    with stores[0].engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    for store in stores:
        store.close()


def test_many_rows_are_written_as_sqlite_writes_them(url: str, tmp_path: Path) -> None:
    found = []
    for database in (url, f"sqlite:///{tmp_path}/record.db"):
        store = Store(database)
        migrate(store)
        units = [
            {"job_id": "j", "ordinal": n, "place": 0, "unit": n, "state": "pending", "labels": []}
            for n in range(1500)
        ]
        with store.writing() as session:
            insert_rows(session, UnitRow, units)
            insert_rows(session, UnitRow, [])
            update_rows(
                session,
                UnitRow,
                [
                    {"job_id": "j", "ordinal": 3, "labels": ['a "b"', "ü"], "percentile": None},
                    {"job_id": "j", "ordinal": 2, "labels": ["c"], "percentile": 0.25},
                    {"job_id": "j", "ordinal": 5, "outputs": {"score": "x#1"}},
                ],
            )
            insert_rows(session, ResultRow, [{"key": "k", "ref": "old"}, {"key": "l", "ref": "l"}])
            insert_rows(session, ResultRow, [{"key": "k", "ref": "new"}], replace=["ref"])
            insert_rows(session, ResultRow, [{"key": "l", "ref": "new"}], ignore=True)
            counter = {"job_id": "j", "name": "n", "state": "s", "num": 2}
            insert_rows(session, CounterRow, [counter], add=["num"])
            insert_rows(session, CounterRow, [counter], add=["num"])
            vector = {"model": "m", "label": "h", "vector": bytes(range(256))}
            insert_rows(session, LabelVectorRow, [vector], ignore=True)
        with store.reading() as session:
            asked = [2, 3, 5, 1499, 7000]
            chosen = select(UnitRow).where(among(session, UnitRow.ordinal, asked))
            rows = session.scalars(chosen.order_by(UnitRow.ordinal)).all()
            found.append(
                (
                    [(u.ordinal, u.labels, u.percentile, u.outputs, u.stage) for u in rows],
                    sorted((r.key, r.ref) for r in session.scalars(select(ResultRow))),
                    read_counters(session, "j"),
                    session.get_one(LabelVectorRow, ("m", "h")).vector,
                )
            )
        store.close()
    assert found[0] == found[1]
    assert found[0] == (
        [
            (2, ["c"], 0.25, {}, ""),
            (3, ['a "b"', "ü"], None, {}, ""),
            (5, [], None, {"score": "x#1"}, ""),
            (1499, [], None, {}, ""),
        ],
        [("k", "new"), ("l", "l")],
        {"n": {"s": 4}},
        bytes(range(256)),
    )


def test_snapshot_stays_as_it_was_while_others_write(url: str) -> None:
    store = Store(url)
    migrate(store)

    def count(num: int) -> None:
        with store.writing() as session:
            tally = Tally(session)
            tally.add("job", "unit", "labeled", num)
            tally.write()

    count(1)
    with store.snapshot() as session:
        before = read_counters(session, "job")
        count(2)
        session.expunge_all()
        assert read_counters(session, "job") == before == {"unit": {"labeled": 1}}
    with store.reading() as session:
        assert read_counters(session, "job") == {"unit": {"labeled": 3}}
    store.close()


def test_embeddings_are_listed_in_order_and_forgotten(url: str) -> None:
    store = Store(url)
    migrate(store)
    with store.writing() as session:
        for model in ("m", "n"):
            write_vectors(session, model, {f"label {n}": np.zeros(4) for n in range(3)})
    with store.writing() as session:
        everything = list_vectors(session, ("", ""), 10)
        assert len(everything) == 6
        assert list_vectors(session, everything[1], 3) == everything[2:5]
        forget_vectors(session, everything[:4])
        assert list_vectors(session, ("", ""), 10) == everything[4:]
    store.close()


def test_garbage_is_that_of_a_record_in_sqlite(url: str, tmp_path: Path) -> None:
    layers = (LayerUnits("features.conv", (12, 13, 14)),)
    spec = replace(SPEC, layers=layers, overrides={**SMALL, "score.num_labels": "1"})
    store = Store(url)
    migrate(store)

    def collect(record: Store, *, remove: bool) -> Garbage:
        return garbage.collect(
            record, fakes.artifacts, 0.0, remove, lambda *_: None, labels_only=True
        )

    with start_fakes(tmp_path / "artifacts") as fakes, open_desk(fakes, tmp_path) as desk:
        desk.run_to_end(desk.create(spec))
        copy_rows(desk.store, store)
        expected = collect(desk.store, remove=False)
        assert expected.num_artifacts > 0
        assert collect(store, remove=False) == expected
        with store.reading() as session:
            assert set(session.scalars(select(ImageSetRow.state))) == {states.DONE}
        assert collect(store, remove=True) == replace(expected, removed=True)
    with store.reading() as session:
        assert set(session.scalars(select(ImageSetRow.state))) == {states.DONE, states.READY}
    store.close()


def test_transaction_runs_again_when_it_was_ended_because_of_a_deadlock(url: str) -> None:
    store = Store(url)
    migrate(store)
    both = threading.Barrier(2)
    tries: list[str] = []

    def add(first: str, second: str) -> None:
        """Locks two counters in the order given, the second once the other one has locked its."""

        def change(session: Session) -> None:
            tries.append(first)
            for place, name in enumerate((first, second)):
                if place and tries.count(first) == 1:
                    both.wait(30)
                tally = Tally(session)
                tally.add("job", name, states.READY)
                tally.write()

        store.write(change)

    threads = [threading.Thread(target=add, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.reading() as session:
        counters = read_counters(session, "job")
    assert counters == {name: {states.READY: 2} for name in ("a", "b")}
    assert len(tries) == 3
    store.close()


def test_leases_go_by_the_clock_of_the_database(url: str) -> None:
    with Store(url, clock=lambda: 0.0).reading() as session:
        statement = text("SELECT extract(epoch FROM clock_timestamp())")
        before = float(session.scalar(statement) or 0)
        assert before <= Store(url, clock=lambda: 0.0).now(session) < before + 60


def test_records_are_those_of_sqlite_when_a_worker_is_killed_and_from_a_dump(
    server: PostgresServer,
    url: str,
    fakes: Fakes,
    undisturbed: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    dump, copied = tmp_path / "record.dump", tmp_path / "artifacts"
    with start_stack(tmp_path / "postgres", fakes, url) as stack:
        stack.start_workers("first", "second")
        with stack.client("killed") as client, stack.client("other") as other:
            ids = [one.create_job(SPEC).id for one in (client, other)]
            wait_until(lambda: _runs(stack), "a worker has claimed something")
            run_tool("pg_dump", "--format", "custom", "--file", dump, plain(url))
            copy_artifacts(fakes.artifacts.root, copied)
            stack.kill_worker("second")
            for one, job_id in zip((client, other), ids, strict=True):
                job = finish(one, job_id)
                assert (job.state, job.num_failed) == (JobState.COMPLETED, 0)
                assert records(one, job_id) == undisturbed
                check_counters(stack.store, job_id)
        assert "deadlock" not in stack.log("first") + stack.log("second")

    new = make_database(server)
    run_tool("pg_restore", "--exit-on-error", "--dbname", plain(new), dump)
    with (
        start_fakes(copied) as others,
        start_stack(tmp_path / "restored", others, new) as restored,
        restored.client("killed") as client,
    ):
        assert client.get_job(ids[0]).state is JobState.RUNNING
        assert restored.claimables(ids[0])
        restored.start_workers("first")
        assert finish(client, ids[0]).state is JobState.COMPLETED
        assert records(client, ids[0]) == undisturbed
        check_counters(restored.store, ids[0])


def run_tool(name: str, *arguments: object) -> None:
    """Runs one of the programs that come with the server."""
    command = [str(find_postgres() / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def plain(url: str) -> str:
    """A URL as PostgreSQL's own programs take it."""
    return url.replace("+psycopg", "")


def test_coordinator_of_now_goes_on_with_the_jobs_of_the_first_version(
    url: str, fakes: Fakes, tmp_path: Path
) -> None:
    layers = (LayerUnits("features.conv", (12, 13, 14)),)
    spec = replace(SPEC, layers=layers, overrides=SMALL)  # the first version had no percentiles
    store = Store(url)
    with open_desk(fakes, tmp_path) as desk:
        ended = desk.create(spec, "ended")
        desk.run_to_end(ended)
        going_on = desk.create(replace(spec, seed=8), "going on")
        desk.published.append(desk.run_to_stage("summarize"))
        make_first_tables(store)
        copied = copy_rows(desk.store, store)
        desk.run_to_end(going_on)
        expected = {job_id: desk.records(job_id) for job_id in (ended, going_on)}
    migrate(store)
    check_migrated(store, copied)
    with start_stack(tmp_path / "stack", fakes, url) as stack:
        stack.start_workers("first")
        with stack.client("default") as client:
            assert finish(client, going_on).state is JobState.COMPLETED
            for job_id, those in expected.items():
                assert records(client, job_id) == those
        check_counters(stack.store, going_on)
    store.close()


def _runs(stack: CoordinatorStack) -> bool:
    return any(work.scope == states.UNITS for work in stack.rows(WorkRow, state=states.RUNNING))
