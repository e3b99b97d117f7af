"""The record's disk is full: SQLite says so by itself where a file may have no more pages."""

from __future__ import annotations

import sqlite3
from itertools import count
from math import inf
from typing import Any

import pytest
from coordinator_desk import Desk
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from dnd.errors import StorageFull
from dnd.jobs import JobSpec, JobState
from dnd_services.coordinator import states, tasks
from dnd_services.coordinator.models import WorkRow
from dnd_services.coordinator.store.engine import is_full


class PostgresError(Exception):
    """What psycopg raises, as far as it is looked at."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (PostgresError("53100"), True),
        (PostgresError("40P01"), False),
        (sqlite3.OperationalError("no such table: job"), False),
    ],
)
def test_only_a_full_disk_is_taken_for_one(cause: Exception, expected: bool) -> None:
    assert is_full(OperationalError("", {}, cause)) is expected


def limit_pages(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Lets the record grow no further, until "num" of the answer is set anew."""
    with desk.store.reading() as session:
        (num,) = session.connection().exec_driver_sql("PRAGMA page_count").one()
    limit = {"num": num}

    def limit_connection(connection: Any, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {limit['num']}")

    event.listen(desk.store.engine, "checkout", limit_connection)
    monkeypatch.setattr(tasks, "_LOOK_FOR_ROOM_S", 0.01)
    return limit


def create_jobs(desk: Desk, spec: JobSpec) -> None:
    """Makes many jobs: the pages that are there take some."""
    for number in range(100):
        desk.create(spec, str(number))


def test_job_is_refused_while_the_record_is_full(
    desk: Desk, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = limit_pages(desk, monkeypatch)
    with pytest.raises(StorageFull, match=r"The disk of the record sqlite:.* is full: free some"):
        create_jobs(desk, spec)
    num_jobs = len(desk.rows(WorkRow, stage="index", scope=states.MERGE))
    limit["num"] = 10**6
    job_id = desk.create(spec, "there is room")
    assert len(desk.rows(WorkRow, stage="index", scope=states.MERGE)) == num_jobs + 1
    desk.run_to_end(job_id)


def fill_disk(desk: Desk, monkeypatch: pytest.MonkeyPatch, first: int, last: float = inf) -> None:
    """The disk is full from the `first` to the `last` transaction from now on, from 0 on."""
    write, numbers = desk.store.write, count()

    def write_or_not(function: Any, **how: Any) -> Any:
        if first <= next(numbers) <= last:
            raise StorageFull("The disk of the record is full.")
        return write(function, **how)

    monkeypatch.setattr(tasks, "_LOOK_FOR_ROOM_S", 0.001)
    monkeypatch.setattr(desk.store, "write", write_or_not)


def test_results_wait_until_there_is_room_for_them(
    desk: Desk, spec: JobSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = desk.create(spec)
    task = desk.run_to_stage("caption")
    num_captioned = desk.fakes.captioner.faults.num_calls["CaptionImages"]
    fill_disk(desk, monkeypatch, 1, 20)  # the first transaction claims
    assert desk.runner.run(task.stage, task.tickets) == len(task.tickets)
    assert desk.fakes.captioner.faults.num_calls["CaptionImages"] == num_captioned + 1
    assert caplog.text.count("results wait") == 1
    desk.run_to_end(job_id)
    assert JobState(desk.job(job_id).state) is JobState.COMPLETED


def test_results_are_given_up_when_there_is_no_room_for_long(
    desk: Desk, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = desk.create(spec)
    task = desk.run_to_stage("caption")
    with monkeypatch.context() as patch:
        patch.setattr(tasks, "_ROOM_WAIT_S", 0.0)
        fill_disk(desk, patch, 1)
        with pytest.raises(StorageFull):
            desk.runner.run(task.stage, task.tickets)
    desk.clock.now += 60  # its lease is over
    desk.reconciler.sweep()
    desk.run_to_end(job_id)
    assert JobState(desk.job(job_id).state) is JobState.COMPLETED


def test_nothing_is_claimed_while_the_record_is_full(
    desk: Desk, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = desk.create(spec)
    task = desk.run_to_stage("caption")
    with monkeypatch.context() as patch:
        fill_disk(desk, patch, 0)
        assert desk.runner.run(task.stage, task.tickets) == 0
    assert {r.state for t in task.tickets for r in desk.rows(WorkRow, id=t.id)} == {states.QUEUED}
    desk.clock.now += 60  # the message counts as lost
    desk.round()  # a worker is there, and idle
    desk.reconciler.sweep()
    desk.run_to_end(job_id)
    assert JobState(desk.job(job_id).state) is JobState.COMPLETED
