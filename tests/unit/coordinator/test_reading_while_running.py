"""What callers read while a job runs: an export of one moment, a watch that is taken up again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from coordinator_api import make_servicer
from coordinator_desk import Desk
from sqlalchemy import event

from dnd.jobs import JobSpec
from dnd.v1 import coordinator_pb2 as pb2
from dnd_services.coordinator import result_methods
from dnd_services.coordinator.servicer import CoordinatorServicer


def states_of(parts: list[pb2.ExportLabelsResponse]) -> Counter[int]:
    return Counter(part.unit.state for part in parts)


async def test_export_is_of_one_moment_while_the_job_goes_on(
    desk: Desk, spec: JobSpec, servicer: CoordinatorServicer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_methods, "_UNITS_AT_ONCE", 3)
    job_id = desk.create(spec)
    task = desk.run_to_stage("score")
    desk.runner.run(task.stage, task.tickets)
    export = servicer.ExportLabels(pb2.ExportLabelsRequest(job_id=job_id), None)
    job = (await anext(export)).job
    parts = [await anext(export)]
    desk.run_to_end(job_id)  # between two reads of the export
    parts += [part async for part in export]
    counts = Counter({one.state: one.num_units for one in job.units})
    assert 0 < counts[pb2.UNIT_STATE_PENDING] < 20
    assert states_of(parts) == counts, "the units are those that the job had when it was read"
    assert len({(part.unit.layer, part.unit.unit) for part in parts}) == len(parts) == 20
    for part in parts:
        assert bool(part.unit.record_json) == (part.unit.state != pb2.UNIT_STATE_PENDING)
    later = servicer.ExportLabels(pb2.ExportLabelsRequest(job_id=job_id), None)
    job = (await anext(later)).job
    assert job.state == pb2.JOB_STATE_COMPLETED
    assert states_of([part async for part in later])[pb2.UNIT_STATE_PENDING] == 0


async def test_watch_that_broke_goes_on_with_what_has_changed_since(
    desk: Desk, spec: JobSpec, servicer: CoordinatorServicer
) -> None:
    def watch(token: str) -> Any:
        return servicer.WatchJob(pb2.WatchJobRequest(resume_token=token), None)

    job_id = desk.create(spec)
    first = servicer.WatchJob(pb2.WatchJobRequest(job_id=job_id), None)
    seen = await anext(first)
    assert seen.job.state == pb2.JOB_STATE_RUNNING
    await first.aclose()  # the connection is lost
    desk.run_to_end(job_id)
    other = make_servicer(desk)  # the coordinator has been started again
    (missed,) = [
        one
        async for one in other.WatchJob(pb2.WatchJobRequest(resume_token=seen.resume_token), None)
    ]
    other.close()
    assert (missed.job.id, missed.job.state) == (job_id, pb2.JOB_STATE_COMPLETED)
    assert [one async for one in watch(missed.resume_token)] == []


async def test_units_are_found_by_layer_and_state(
    desk: Desk, spec: JobSpec, servicer: CoordinatorServicer
) -> None:
    job_id = desk.create(spec)
    desk.run_to_end(job_id)

    async def units(**filters: Any) -> list[tuple[str, int]]:
        request = pb2.ListLabelsRequest(job_id=job_id, page_size=3, **filters)
        found: list[tuple[str, int]] = []
        while True:
            page = await servicer.ListLabels(request, None)
            found += [(one.layer, one.unit) for one in page.units]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    everything = [(view.layer, view.unit) for view in desk.units(job_id)]
    assert await units() == everything
    classifier = [one for one in everything if one[0] == "classifier"]
    assert await units(layer="classifier") == classifier
    for state in ("LABELED", "DEAD", "TIED", "SPARSE"):
        expected = [
            (view.layer, view.unit) for view in desk.units(job_id) if view.state.name == state
        ]
        assert expected
        assert await units(state=getattr(pb2, f"UNIT_STATE_{state}")) == expected
        both = await units(state=getattr(pb2, f"UNIT_STATE_{state}"), layer="classifier")
        assert both == [one for one in expected if one in classifier]


async def test_many_jobs_are_listed_with_as_many_statements_as_one(
    desk: Desk, job_id: str, spec: JobSpec, servicer: CoordinatorServicer
) -> None:
    statements: list[str] = []
    event.listen(
        desk.store.engine, "before_cursor_execute", lambda *given: statements.append(given[2])
    )

    async def listed() -> tuple[list[pb2.Job], int]:
        statements.clear()
        answer = await servicer.ListJobs(pb2.ListJobsRequest(), None)
        return list(answer.jobs), len(statements)

    desk.create(spec, "second")
    _, of_two = await listed()
    for number in range(5):
        desk.create(spec, f"more-{number}")
    found, of_seven = await listed()
    assert len(found) == 7
    assert of_seven == of_two
    for job in found:
        one = await servicer.GetJob(pb2.GetJobRequest(job_id=job.id), None)
        assert job == one.job
    assert {len(job.units) > 1 for job in found} == {True, False}, "one of them has ended"
