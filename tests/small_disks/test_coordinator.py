"""A coordinator with its workers while the disk of its artifacts, or of its record, is full."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from coordinator_desk import check_counters
from coordinator_stack import (
    SPEC,
    CoordinatorStack,
    finish,
    records,
    start_stack,
    wait_until,
)
from small_disks.conftest import Disk

from dnd.artifacts import ArtifactStore
from dnd.client import Client
from dnd.errors import StorageFull
from dnd.jobs import JobState
from dnd.testing import Fakes, start_fakes
from dnd_services.coordinator import states
from dnd_services.coordinator.models import WorkRow

NAMES = ("first", "second")


@pytest.fixture
def artifacts(make_disk: Callable[[str, int], Disk]) -> Disk:
    return make_disk("artifacts", 32)


@pytest.fixture
def record(make_disk: Callable[[str, int], Disk]) -> Disk:
    return make_disk("record", 32)


@pytest.fixture
def fakes(artifacts: Disk) -> Iterator[Fakes]:
    with start_fakes(ArtifactStore(artifacts.folder)) as fakes:
        yield fakes


@pytest.fixture
def stack(tmp_path: Path, fakes: Fakes, record: Disk) -> Iterator[CoordinatorStack]:
    database = f"sqlite:///{record.folder}/record.db"
    with start_stack(tmp_path / "coordinator", fakes, database) as stack:
        stack.start_workers(*NAMES)
        yield stack


def start_slowly(stack: CoordinatorStack, client: Client, fakes: Fakes) -> str:
    """A job of which a worker has some units, and most of the work is left."""
    fakes.captioner.faults.latency_s = 0.5
    job_id = client.create_job(SPEC).id
    wait_until(
        lambda: stack.rows(WorkRow, job_id=job_id, stage="caption", state=states.RUNNING),
        "exemplars are captioned",
    )
    return job_id


def empty_log(stack: CoordinatorStack) -> None:
    """Cuts the write-ahead log of SQLite off: its pages would take some more writes."""

    def is_empty() -> bool:
        with stack.store.engine.connect() as connection:
            (busy, *_), *_ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return not busy

    wait_until(is_empty, "the log is empty")


def create_jobs(client: Client) -> None:
    """Makes some jobs: the page that was begun last may have room for one."""
    for _ in range(50):
        client.create_job(SPEC)


def test_jobs_wait_while_a_disk_is_full_and_end_as_on_an_empty_one(
    stack: CoordinatorStack, fakes: Fakes, artifacts: Disk, record: Disk
) -> None:
    with stack.client("quiet") as client:
        expected = records(client, finish(client, client.create_job(SPEC).id).id)

    with stack.client("artifacts") as client:
        first = start_slowly(stack, client, fakes)
        artifacts.fill()
        told = wait_until(lambda: client.get_job(first).pause_reason, "the stage is held back")
        assert " is held back: The artifact store" in told
        assert "is full: free some space; work then goes on by itself." in told
        assert client.get_job(first).state is JobState.RUNNING
        artifacts.free()
        assert finish(client, first).state is JobState.COMPLETED
        assert records(client, first) == expected

    with stack.client("record") as client:
        second = start_slowly(stack, client, fakes)
        empty_log(stack)
        record.fill()
        with pytest.raises(StorageFull, match=r"The disk of the record .* is full"):
            create_jobs(client)
        wait_until(
            lambda: any("results wait" in stack.log(name) for name in NAMES),
            "a worker cannot write what it has computed",
        )
        assert client.get_job(second).state is JobState.RUNNING  # it can still be read
        record.free()
        assert finish(client, second).state is JobState.COMPLETED
        assert records(client, second) == expected

    for job_id in (first, second):
        check_counters(stack.store, job_id)
        rows = stack.claimables(job_id)
        assert max(row.attempts for row in rows) == 0
        assert {row.state for row in rows} <= {states.DONE, states.SKIPPED}
    for name in NAMES:
        assert stack.stop_worker(name) == 0
    for name in (*NAMES, "coordinator"):
        assert "Traceback" not in stack.log(name)
