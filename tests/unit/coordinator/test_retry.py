"""What has failed is run again from where it failed, and gives what it would have given."""

from __future__ import annotations

from typing import Any

import pytest
from coordinator_desk import Desk

from dnd.errors import BadAnswer, FailedPrecondition
from dnd.jobs import JobSpec, JobState, UnitState


@pytest.fixture
def undisturbed(desk: Desk, spec: JobSpec) -> list[dict[str, Any]]:
    job_id = desk.create(spec, tenant="undisturbed")
    desk.run_to_end(job_id)
    return desk.records(job_id)


def test_drawings_are_made_again_when_units_have_failed_for_want_of_them(
    desk: Desk, spec: JobSpec, undisturbed: list[dict[str, Any]]
) -> None:
    desk.fakes.synthesizer.faults.item = lambda _: BadAnswer("no ink")
    job_id = desk.create(spec)
    desk.run_to_end(job_id)
    assert JobState(desk.job(job_id).state) is JobState.COMPLETED  # dead and tied units are settled
    progress = desk.progress(job_id)
    assert progress.units[UnitState.FAILED] == 18
    assert UnitState.LABELED not in progress.units
    first = desk.records(job_id)[0]
    assert "No candidate has enough drawings" in first["error"]
    assert "no ink" in first["error"]
    desk.check_counters(job_id)

    desk.fakes.synthesizer.faults.item = None
    desk.retry(job_id)
    desk.check_counters(job_id)
    desk.run_to_end(job_id)
    assert desk.records(job_id) == undisturbed
    (drawing,) = (stage for stage in desk.progress(job_id).stages if stage.stage == "synthesize")
    assert drawing.num_failed == drawing.num_open == 0
    desk.check_counters(job_id)


def test_candidate_is_dropped_with_the_reason_when_its_drawings_fail(
    desk: Desk, spec: JobSpec, undisturbed: list[dict[str, Any]]
) -> None:
    bad = undisturbed[0]["candidates"][-1]["prompt"]
    desk.fakes.synthesizer.faults.item = lambda item: (
        BadAnswer("no ink") if item[0] == bad else None
    )
    job_id = desk.create(spec)
    desk.run_to_end(job_id)
    dropped = [
        (one["prompt"], one["dropped"])
        for record in desk.records(job_id)
        for one in record["candidates"]
        if one["dropped"]
    ]
    assert dropped
    assert {prompt for prompt, _ in dropped} == {bad}
    assert all("no ink" in reason for _, reason in dropped)
    with pytest.raises(FailedPrecondition, match="there is nothing to retry"):
        desk.retry(job_id)
