"""Jobs through the API: made once, refused with a reason, held, cancelled, of any size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import grpc
import httpx2
import psutil
import pytest
from coordinator_stack import SPEC, CoordinatorStack, Gate, finish, records, wait_until

from dnd.client import Client
from dnd.errors import (
    AlreadyExists,
    BadSetting,
    DndError,
    EmptyProbeSet,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    UnitOutOfRange,
    UnknownName,
)
from dnd.jobs import (
    Job,
    JobSpec,
    JobState,
    LayerUnits,
    Limits,
    UnitState,
    spec_to_message,
)
from dnd.testing import Fakes
from dnd.v1 import coordinator_pb2, coordinator_pb2_grpc
from dnd_services.coordinator.models import ImageSetRow, JobLayerRow, UnitRow, WorkRow

MILLION = 1_000_000
PROBES = ("empty", "photos", "shapes")
WIDE = JobSpec("wide", (LayerUnits("encoder"),), "shapes", "starter")
CONV = LayerUnits("features.conv", (0,))


def test_concept_set_is_kept_cleaned_and_counted(client: Client) -> None:
    kept = client.create_concept_set("words.txt", "dog\n\ncat\ndog\n")
    assert (kept.num_concepts, kept.num_blank, kept.num_repeated) == (2, 1, 1)
    assert kept.concept_set == client.create_concept_set("other", "dog\ncat").concept_set
    with pytest.raises(InvalidInput, match=r"words\.txt has no concept"):
        client.create_concept_set("words.txt", "\n \n")


def test_callers_see_one_job_through_all_methods(
    client: Client, undisturbed: list[dict[str, Any]]
) -> None:
    targets = client.targets()
    assert (targets.models, targets.probes) == (("broad", "tiny", "wide"), PROBES)
    layers = [layer.path for layer in client.layers("tiny")]
    assert layers == ["features.conv", "features.norm", "classifier"]
    estimate = client.estimate(SPEC)
    assert (estimate.num_units, estimate.num_probe_images, estimate.num_captions) == (12, 120, 60)
    assert estimate.duration_s > 0  # all stages have been measured
    seen = list(client.watch(client.create_job(SPEC).id))
    ended = [job.num_ended for job in seen]
    assert ended == sorted(ended)
    job = seen[-1]
    assert job == client.get_job(job.id) == client.get_job()
    assert job.state is JobState.COMPLETED
    assert job.spec == SPEC
    states = Counter(one["state"] for one in undisturbed)
    assert {state.value: num for state, num in job.units.items()} == states
    assert states["labeled"] + states["uncertain"] == 9
    assert states["sparse"] == states["dead"] == states["tied"] == 1
    assert all(stage.num_done == stage.num_total for stage in job.stages)
    assert [stage.stage for stage in job.stages if not stage.num_total] == ["dissect"]
    units = list(client.labels(job.id, page_size=5))
    assert [unit.record for unit in units] == [
        client.unit(job.id, unit.layer, unit.unit).record for unit in units
    ]
    assert records(client, job.id) == undisturbed
    (dead,) = client.labels(job.id, state=UnitState.DEAD)
    assert (dead.layer, dead.unit, dead.labels) == ("features.conv", 13, ())
    refs = [exemplar["image"] for exemplar in undisturbed[0]["exemplars"]]
    assert all(data.startswith(b"\x89PNG") for data in client.images(job.id, refs))
    with pytest.raises(NotFound):
        client.images(job.id, ["sha256:" + "0" * 64])


def test_rest_is_served_beside_grpc_with_the_tenant_s_jobs(
    stack: CoordinatorStack, client: Client, fakes: Fakes, tenant: str
) -> None:
    gate = fakes.activations.faults.call = Gate("IndexShard")
    job_id = client.create_job(SPEC).id
    with httpx2.Client(
        base_url=f"{stack.web_url()}/api/v1", headers={"x-dnd-tenant": tenant}
    ) as web:
        assert [one["id"] for one in web.get("/jobs").json()["jobs"]] == [job_id]
        assert web.post(f"/jobs/{job_id}/cancel").json()["job"]["state"] == "cancelled"
        assert web.get(f"/jobs/{job_id}", headers={"x-dnd-tenant": "other"}).status_code == 404
    gate.open()


def test_job_is_made_once_when_its_request_comes_again(client: Client, fakes: Fakes) -> None:
    gate = fakes.activations.faults.call = Gate("IndexShard")
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: client.create_job(SPEC, "same"), range(4)))
    fakes.stop("captioner")  # what was made before needs nobody
    assert client.create_job(SPEC, "same").id == made[0].id
    assert {job.id for job in made} == {made[0].id}
    assert [job.id for job in client.list_jobs()] == [made[0].id]
    with pytest.raises(AlreadyExists, match=f"'same' belongs to job {made[0].id}"):
        client.create_job(replace(SPEC, seed=8), "same")
    client.cancel_job(made[0].id)
    gate.open()


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"model": "tinny"}, UnknownName, "no model 'tinny'. Did you mean 'tiny'?"),
        ({"model": ""}, InvalidInput, "names no model"),
        ({"layers": (LayerUnits("features.cnv"),)}, UnknownName, "Did you mean 'features.conv'"),
        ({"layers": ()}, InvalidInput, "names no layer"),
        ({"layers": (CONV, CONV)}, InvalidInput, "'features.conv' is given twice"),
        (
            {"layers": (LayerUnits("classifier", (3, 10)),)},
            UnitOutOfRange,
            "Layer 'classifier' of 'tiny' has units 0 to 9: unit 10 is not among them.",
        ),
        ({"layers": (LayerUnits("classifier", (-1,)),)}, UnitOutOfRange, "unit -1"),
        ({"layers": (LayerUnits("classifier", (3, 1)),)}, InvalidInput, "ascending units"),
        ({"layers": (LayerUnits("classifier", (3, 3)),)}, InvalidInput, "each of them once"),
        ({"probe": "shape"}, UnknownName, "Did you mean 'shapes'"),
        ({"probe": "empty"}, EmptyProbeSet, "no readable image"),
        ({"profile": "papre"}, UnknownName, "Did you mean 'paper'"),
        ({"overrides": {"synthesis.steps": "3"}}, BadSetting, "synthesis.steps"),
        ({"overrides": {"synthesis.num_images": '"ten"'}}, BadSetting, "synthesis.num_images"),
        ({"overrides": {"synthesis.num_images": "-1"}}, BadSetting, "num_images"),
    ],
    ids=[
        "model_misspelt",
        "no_model",
        "layer_misspelt",
        "no_layer",
        "layer_twice",
        "unit_too_high",
        "unit_negative",
        "units_descending",
        "unit_twice",
        "probe_misspelt",
        "probe_empty",
        "profile_misspelt",
        "override_unknown",
        "override_of_wrong_type",
        "override_out_of_range",
    ],
)
def test_job_is_refused_with_the_reason_when_its_specification_is_wrong(
    session_client: Client, wrong: dict[str, Any], error: type[DndError], message: str
) -> None:
    spec = replace(SPEC, **wrong)
    with pytest.raises(error) as caught:
        session_client.create_job(spec)
    assert message in caught.value.message
    with pytest.raises(error):
        session_client.estimate(spec)


@pytest.fixture
def session_client(stack: CoordinatorStack) -> Any:
    with stack.client("wrong") as client:
        yield client
        assert list(client.list_jobs()) == []


def test_job_is_refused_when_it_has_fields_that_the_server_does_not_know(
    client: Client,
) -> None:
    known = coordinator_pb2.CreateJobRequest(request_id="r", spec=spec_to_message(SPEC))
    newer = b"\x9a\x06\x02hi"  # field 99, a string
    spec = known.spec.SerializeToString() + newer
    request = coordinator_pb2.CreateJobRequest(request_id="r")
    request.spec.MergeFromString(spec)
    with grpc.insecure_channel(client.server) as channel:
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.CreateJob(request, timeout=20)
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "numbers 99" in str(caught.value.details())


def test_unknown_jobs_units_and_tokens_are_refused(client: Client, fakes: Fakes) -> None:
    gate = fakes.activations.faults.call = Gate("IndexShard")
    with pytest.raises(NotFound, match="no job 'nosuch'"):
        client.get_job("nosuch")
    job_id = client.create_job(SPEC).id
    with pytest.raises(NotFound, match=r"no unit 0 of layer 'features\.conv'"):
        client.unit(job_id, "features.conv", 0)
    with pytest.raises(NotFound, match=r"its layers are features\.conv, classifier"):
        list(client.labels(job_id, layer="fc"))
    with pytest.raises(FailedPrecondition, match="is running and cannot be tried again"):
        client.retry_job(job_id)
    client.cancel_job(job_id)
    gate.open()


def test_labels_that_are_done_stay_when_the_job_is_cancelled(
    stack: CoordinatorStack, client: Client, fakes: Fakes, undisturbed: list[dict[str, Any]]
) -> None:
    layers = (LayerUnits("features.conv", (7, 8, 9, 10)), LayerUnits("classifier", (0, 3)))
    fakes.scorer.faults.latency_s = 0.5
    plain = {**SPEC.overrides, "calibration.enabled": "false"}
    job_id = client.create_job(replace(SPEC, layers=layers, overrides=plain)).id
    wait_until(lambda: UnitState.LABELED in client.get_job(job_id).units, "a unit is labelled")
    gate = fakes.scorer.faults.call = Gate("ScoreConcepts")
    job = client.cancel_job(job_id)
    gate.open()
    assert job.state is JobState.CANCELLED
    assert set(job.units) <= {UnitState.LABELED, UnitState.CANCELLED}
    wait_until(lambda: not running(stack, job_id), "nothing is under way")
    after = client.get_job(job_id)
    assert (after.units, after.state) == (job.units, job.state)
    known = {(one["layer"], one["unit"]): one["labels"] for one in undisturbed}
    for unit in client.labels(job_id, state=UnitState.LABELED):
        assert unit.record is not None
        assert unit.record["labels"] == known[unit.layer, unit.unit]
    assert client.cancel_job(job_id).state is JobState.CANCELLED
    with pytest.raises(FailedPrecondition, match="is cancelled and cannot be resumed"):
        client.resume_job(job_id)


def test_deleted_job_is_gone_and_its_artifacts_are_garbage(
    stack: CoordinatorStack, client: Client, undisturbed: list[dict[str, Any]]
) -> None:
    job_id = client.create_job(SPEC, "same").id
    with pytest.raises(FailedPrecondition, match="is running and cannot be deleted"):
        client.delete_job(job_id)
    with pytest.raises(FailedPrecondition, match="has not ended, and may need what is younger"):
        client.collect_garbage(60.0)
    finish(client, job_id)
    with pytest.raises(InvalidInput, match="No job_id is given"):
        client.delete_job("")
    client.delete_job(job_id)
    assert list(client.list_jobs()) == []
    for ask in (client.get_job, client.delete_job, client.cancel_job, client.retry_job):
        with pytest.raises(NotFound, match=f"no job '{job_id}'"):
            ask(job_id)
    wait_until(lambda: not stack.rows(WorkRow, job_id=job_id), "its rows are gone")
    with pytest.raises(InvalidInput, match="grace_s is -1"):
        client.collect_garbage(-1.0)
    seen = client.collect_garbage(0.0)
    assert seen.num_artifacts > 0
    assert not seen.removed
    assert client.collect_garbage(24 * 3600.0, remove=True).num_artifacts == 0  # all of it is young
    assert client.collect_garbage(0.0) == seen
    with stack.client("undisturbed") as other:
        assert records(other, other.get_job().id) == undisturbed


def test_job_pauses_at_its_limit_and_resumes_with_a_higher_one(
    client: Client, undisturbed: list[dict[str, Any]]
) -> None:
    job_id = client.create_job(replace(SPEC, limits=Limits(max_units=4))).id
    job = wait_until(lambda: paused(client, job_id), "the limit is reached")
    assert job.limits == Limits(max_units=4)
    assert job.used.num_units == 4
    assert "It has used 4 of at most 4 units" in job.pause_reason
    with pytest.raises(FailedPrecondition, match="has used 4 of at most 4 units"):
        client.resume_job(job_id)
    with pytest.raises(InvalidInput, match=r"limits\.max_tokens is -1"):
        client.resume_job(job_id, Limits(max_tokens=-1))
    with pytest.raises(InvalidInput, match="has no price"):
        client.resume_job(job_id, Limits(max_dollars=1.0))
    with pytest.raises(InvalidInput, match="the operator has named no price"):
        client.create_job(replace(SPEC, limits=Limits(max_dollars=1.0)))
    resumed = client.resume_job(job_id, Limits(max_units=100))
    assert (resumed.state, resumed.pause_reason) == (JobState.RUNNING, "")
    finished = finish(client, job_id)
    assert finished.used.num_tokens > 0
    assert finished.used.num_images > 0
    assert records(client, job_id) == undisturbed


def paused(client: Client, job_id: str) -> Job | None:
    job = client.get_job(job_id)
    return job if job.state is JobState.PAUSED else None


def test_nothing_new_starts_while_a_job_is_paused(
    stack: CoordinatorStack, client: Client, fakes: Fakes, undisturbed: list[dict[str, Any]]
) -> None:
    gate = fakes.summarizer.faults.call = Gate("ProposeConcepts")
    job_id = client.create_job(SPEC).id
    gate.wait()
    job = client.pause_job(job_id)
    assert (job.state, job.pause_reason) == (JobState.PAUSED, "Paused by its owner.")
    gate.open()
    wait_until(lambda: not running(stack, job_id), "what was under way has finished")
    summarised = stack.rows(WorkRow, job_id=job_id, stage="summarize", state="DONE")
    assert summarised  # what was running is kept
    calls = dict(fakes.synthesizer.faults.num_calls)
    until = stack.leads_until()
    wait_until(lambda: stack.leads_until() > until + 1.5, "the dispatcher has looked")
    assert dict(fakes.synthesizer.faults.num_calls) == calls
    assert client.get_job(job_id).state is JobState.PAUSED
    assert client.resume_job(job_id).state is JobState.RUNNING
    assert finish(client, job_id).state is JobState.COMPLETED
    assert records(client, job_id) == undisturbed


def running(stack: CoordinatorStack, job_id: str) -> list[WorkRow | ImageSetRow]:
    return [row for row in stack.claimables(job_id) if row.state == "RUNNING"]


def test_rows_follow_the_work_when_a_job_has_a_million_units(
    stack: CoordinatorStack, client: Client, fakes: Fakes
) -> None:
    gate = fakes.activations.faults.call = Gate("SelectExemplars")
    with growing_at_most(stack, mebibytes=100):
        job = client.create_job(WIDE)
        assert job.num_units == MILLION
        gate.wait()
        pending = len(stack.rows(UnitRow, job_id=job.id, state="pending"))
        assert 0 < pending <= 4000
        first = list(islice(client.labels(job.id, with_records=False, page_size=10), 25))
        assert [one.unit for one in first] == list(range(25))
        cancelled = client.cancel_job(job.id)
    gate.open()
    assert cancelled.units[UnitState.CANCELLED] > MILLION * 0.9


def test_job_is_made_when_a_million_units_are_listed_one_by_one(
    stack: CoordinatorStack, client: Client, fakes: Fakes
) -> None:
    gate = fakes.activations.faults.call = Gate("IndexShard")
    listed = (LayerUnits("encoder", tuple(range(MILLION))),)
    with growing_at_most(stack, mebibytes=200):
        job = client.create_job(replace(WIDE, layers=listed))
    assert job.num_units == MILLION
    assert job.spec.layers == listed
    (layer,) = stack.rows(JobLayerRow, job_id=job.id)
    assert layer.ranges == [[0, MILLION]]
    client.cancel_job(job.id)
    gate.open()


@contextmanager
def growing_at_most(stack: CoordinatorStack, mebibytes: int) -> Iterator[None]:
    """Fails if the coordinator process has more memory after the block than that, above before."""
    assert stack.coordinator is not None
    process = psutil.Process(stack.coordinator.pid)
    before = process.memory_info().rss
    yield
    grown = (process.memory_info().rss - before) / 2**20
    assert grown <= mebibytes, f"{grown:.0f} MiB"
