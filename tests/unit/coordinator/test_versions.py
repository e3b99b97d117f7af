"""What a worker does with work that a later version has made, and with jobs of the last release."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest
from coordinator_desk import Desk
from sqlalchemy import update

from dnd.errors import InvalidInput, VersionSkew
from dnd.jobs import JobSpec, JobState, LayerUnits
from dnd.serving.interceptor import expect_known_fields
from dnd.v1 import captioner_pb2, types_pb2
from dnd_services.coordinator import states
from dnd_services.coordinator.celery_app import MESSAGE_VERSION, VERSION_HEADER, is_known
from dnd_services.coordinator.frozen import make_plan
from dnd_services.coordinator.models import JobRow, UnitRow, WorkRow

RELEASED = Path(__file__).parents[2] / "released" / "frozen_job.json"
Later: TypeAlias = Callable[[dict[str, object]], dict[str, object]]
LATER_FIELD = bytes([0xC2, 0x3E, 1, ord("x")])  # field 1000: the string "x"


def freeze_later(profile: dict[str, object]) -> dict[str, object]:
    return {**profile, "captions": {"of": "a later kind"}}


def set_later(profile: dict[str, object]) -> dict[str, object]:
    settings = profile["score"]
    assert isinstance(settings, dict)
    return {**profile, "score": {**settings, "later": 1}}


@pytest.mark.parametrize("later", [freeze_later, set_later])
def test_job_of_a_later_version_waits_at_no_cost_for_a_worker_that_knows_it(
    desk: Desk, spec: JobSpec, later: Later
) -> None:
    job_id = desk.create(replace(spec, layers=(LayerUnits("features.conv", (12, 13)),)))
    frozen = desk.job(job_id).frozen
    set_profile(desk, job_id, later)
    for _ in range(5):
        desk.run_until_idle()
        desk.clock.now += 60
    assert desk.job(job_id).state == JobState.RUNNING.value
    shards = desk.rows(WorkRow, job_id=job_id, scope=states.SHARD)
    for work in shards:
        assert (work.state, work.attempts, work.losses) == (states.READY, 0, 0)
        assert "was made by a newer version" in work.error
    assert shards
    set_frozen(desk, job_id, frozen)
    desk.run_to_end(job_id)
    assert desk.job(job_id).state == JobState.COMPLETED.value


def test_job_of_a_later_version_whose_units_get_rows_keeps_no_other_from_work(
    desk: Desk, spec: JobSpec
) -> None:
    job_id = desk.create(replace(spec, layers=(LayerUnits("features.conv", (12, 13)),)))
    desk.tune(open_units=0)
    desk.run_until_idle()  # it is indexed, and no unit of it has a row
    desk.tune(open_units=4000)
    frozen = desk.job(job_id).frozen
    set_profile(desk, job_id, set_later)
    desk.run_to_end(desk.create(replace(spec, layers=spec.layers[1:]), "other"))
    assert desk.job(job_id).state == JobState.RUNNING.value
    assert desk.rows(UnitRow, job_id=job_id) == []
    set_frozen(desk, job_id, frozen)
    desk.run_to_end(job_id)
    assert desk.job(job_id).state == JobState.COMPLETED.value


def set_profile(desk: Desk, job_id: str, later: Later) -> None:
    """Freezes a job to a profile as a later version may have made it."""
    frozen = desk.job(job_id).frozen
    profile = json.dumps(later(json.loads(frozen["profile"])))
    set_frozen(desk, job_id, {**frozen, "profile": profile})


def set_frozen(desk: Desk, job_id: str, frozen: object) -> None:
    with desk.store.writing() as session:
        session.execute(update(JobRow).where(JobRow.id == job_id).values(frozen=frozen))


def test_work_of_a_kind_that_a_later_version_has_added_waits_too(desk: Desk, spec: JobSpec) -> None:
    job_id = desk.create(spec)
    with desk.store.writing() as session:
        is_shard = WorkRow.scope == states.SHARD
        session.execute(update(WorkRow).where(is_shard).values(scope="later"))
    desk.round()
    desk.work()
    rows = desk.rows(WorkRow, job_id=job_id, scope="later")
    assert rows
    assert all("does not know work" in row.error for row in rows)
    assert {row.attempts for row in rows} == {0}


def test_job_of_the_last_release_can_still_be_read() -> None:
    plan = make_plan(json.loads(RELEASED.read_text()))
    assert plan.profile.name == "starter"
    assert plan.bank == ("a cat",)


@pytest.mark.parametrize(
    ("headers", "known"),
    [
        (None, True),
        ({}, True),
        ({VERSION_HEADER: MESSAGE_VERSION}, True),
        ({VERSION_HEADER: MESSAGE_VERSION + 1}, False),
    ],
)
def test_version_of_a_message_says_whether_it_is_read(
    headers: dict[str, int] | None, known: bool
) -> None:
    assert is_known(headers) is known


def test_fields_that_a_server_does_not_know_are_refused_but_for_those_of_the_context() -> None:
    request = captioner_pb2.CaptionImagesRequest(
        context=types_pb2.RequestContext(job="j"), images=[types_pb2.Image(ref="r")]
    )
    request.context.MergeFromString(LATER_FIELD)
    expect_known_fields("/a/b", request)
    request.images[0].MergeFromString(LATER_FIELD)
    with pytest.raises(VersionSkew, match="/a/b: the request has fields"):
        expect_known_fields("/a/b", request)
    assert not issubclass(VersionSkew, InvalidInput), "it would be an attempt of its item"
