"""A deleted job is gone at once for callers, and soon for the record; what others need stays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from coordinator_desk import Desk
from coordinator_stack import Gate

from dnd.errors import FailedPrecondition, NotFound
from dnd.jobs import JobSpec, LayerUnits
from dnd_services.coordinator import reconciler, states
from dnd_services.coordinator.models import (
    Base,
    CounterRow,
    ImageSetRow,
    JobLayerRow,
    JobRow,
    JobSetRow,
    SetWaitRow,
    UnitRow,
    WorkRow,
)
from dnd_services.coordinator.store import jobs
from dnd_services.coordinator.store.spending import tenant_key


@pytest.fixture
def spec(spec: JobSpec) -> JobSpec:
    """5 units, of them one dead."""
    return replace(spec, layers=(LayerUnits("features.conv", (10, 11, 12, 13, 14)),))


OF_JOBS: tuple[type[Base], ...] = (
    *(JobRow, JobLayerRow, UnitRow, WorkRow),
    *(JobSetRow, SetWaitRow, CounterRow, ImageSetRow),
)


def rows_of_jobs(desk: Desk) -> list[Base]:
    """All rows that jobs have; what their tenant has used outlives them."""
    of_tenant = tenant_key("default")
    rows = [row for table in OF_JOBS for row in desk.rows(table)]
    return [row for row in rows if getattr(row, "job_id", "") != of_tenant]


def test_nothing_of_a_deleted_job_is_left(
    desk: Desk, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "_PURGED_AT_ONCE", 1)
    job_id = desk.create(spec)
    desk.run_to_end(job_id)
    assert all(desk.rows(table) for table in OF_JOBS if table is not SetWaitRow)
    desk.delete(job_id)
    with desk.store.reading() as session:
        assert jobs.list_jobs(session, "default", "", 10) == []
        with pytest.raises(NotFound, match=f"no job '{job_id}'"):
            jobs.find_job(session, "default", job_id)
        with pytest.raises(NotFound, match="no job yet"):
            jobs.find_job(session, "default", "")
    desk.reconciler.sweep()
    assert desk.rows(WorkRow)  # a little at a time
    again = desk.create(spec)  # under the same request id
    assert again != job_id
    desk.cancel(again)
    desk.delete(again)
    desk.sweep_until_purged()
    assert not rows_of_jobs(desk)


def test_other_jobs_keep_what_they_share_with_a_deleted_one(desk: Desk, spec: JobSpec) -> None:
    first = desk.create(spec, "first")
    more = replace(spec, layers=(LayerUnits("features.conv", tuple(range(12, 18))),))
    second = desk.create(more, "second")
    for job_id in (first, second):
        desk.run_to_end(job_id)
    records = desk.records(second)
    num_sets = len(desk.rows(ImageSetRow))
    desk.delete(first)
    desk.sweep_until_purged()
    assert desk.records(second) == records
    desk.check_counters(second)
    needed = {pair.set_id for pair in desk.rows(JobSetRow)}
    assert {row.id for row in desk.rows(ImageSetRow)} == needed
    assert len(needed) < num_sets


def test_job_is_deleted_only_when_it_has_ended(desk: Desk, spec: JobSpec) -> None:
    job_id = desk.create(spec)
    with pytest.raises(FailedPrecondition, match="is running and cannot be deleted"):
        desk.delete(job_id)


def test_rows_that_a_worker_holds_go_when_it_has_let_go_of_them(desk: Desk, spec: JobSpec) -> None:
    job_id = desk.create(spec)
    task = desk.run_to_stage("synthesize")
    gate = desk.fakes.synthesizer.faults.call = Gate("SynthesizeImages")
    with ThreadPoolExecutor(1) as pool:
        try:
            running = pool.submit(desk.runner.run, task.stage, task.tickets)
            gate.wait()
            desk.cancel(job_id)
            desk.delete(job_id)
            for _ in range(5):
                desk.reconciler.sweep()
            held = desk.rows(ImageSetRow, state=states.RUNNING)
            assert {row.id for row in held} == {ticket.id for ticket in task.tickets}
        finally:
            gate.open()
        assert running.result(30) == len(task.tickets)
    desk.work()  # what was queued is dropped
    desk.sweep_until_purged()
    assert not rows_of_jobs(desk)
