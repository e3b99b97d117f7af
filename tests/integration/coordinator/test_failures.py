"""Failures are classified: an item's own, such as may pass, and such as need an operator."""

from __future__ import annotations

from typing import Any

import pytest
from coordinator_stack import SPEC, CoordinatorStack, comparable, finish, records, wait_until

from dnd import keys
from dnd.client import Client
from dnd.errors import BadAnswer, DndError, Internal, LlmRefused, Unavailable
from dnd.jobs import JobState, UnitState
from dnd.testing import Fakes

Records = list[dict[str, Any]]

POISON = keys.unit_seed(SPEC.seed, SPEC.model, "features.conv", 9)
REFUSED = LlmRefused("The language model's server answered 401: the API key is wrong.")


@pytest.mark.parametrize("whole_call", [False, True], ids=["item", "call"])
def test_poison_unit_fails_alone_and_is_labelled_when_retried(
    stack: CoordinatorStack, client: Client, fakes: Fakes, undisturbed: Records, whole_call: bool
) -> None:
    def poison(seed: int) -> DndError | None:
        if seed != POISON:
            return None
        if whole_call:  # the whole batch around it fails
            raise Internal("out of cheese")
        return BadAnswer("out of cheese")

    fakes.summarizer.faults.item = poison
    job = finish(client, client.create_job(SPEC).id)
    assert job.state is JobState.COMPLETED
    assert job.num_failed == 1
    failed = client.unit(job.id, "features.conv", 9)
    assert (failed.state, failed.stage) == (UnitState.FAILED, "summarize")
    assert "out of cheese" in failed.error
    assert failed.record is not None
    assert failed.record["exemplars"]
    expected = [one["labels"] if one["unit"] != 9 else [] for one in undisturbed]
    assert [one["labels"] for one in records(client, job.id)] == expected
    (row,) = [row for row in stack.claimables(job.id) if row.attempts]
    assert (row.state, row.attempts) == ("FAILED", 3)
    assert fakes.summarizer.faults.num_items["ProposeConcepts", POISON] <= 4

    fakes.summarizer.faults.item = None
    client.retry_job(job.id)
    again = finish(client, job.id)
    assert (again.state, again.num_failed) == (JobState.COMPLETED, 0)
    assert records(client, job.id) == undisturbed


def test_job_waits_and_completes_when_a_service_is_away(
    stack: CoordinatorStack, client: Client, fakes: Fakes, undisturbed: Records, tenant: str
) -> None:
    stack.kill_worker("first")
    stack.start_workers("impatient", rpc_deadline_s=2)
    fakes.stop("captioner")
    with stack.client(tenant, retry_s=0) as hasty, pytest.raises(Unavailable) as caught:
        hasty.create_job(SPEC)
    assert "captioner service at" in caught.value.message
    assert "cannot be reached" in caught.value.message
    fakes.start("captioner")
    fakes.activations.faults.latency_s = 0.5
    job_id = client.create_job(SPEC).id
    fakes.stop("captioner")
    held = wait_until(lambda: client.get_job(job_id).pause_reason, "the stage is held back")
    assert "Stage caption is held back: No answer for" in held
    assert "captioner" in held
    fakes.activations.faults.latency_s = 0
    fakes.start("captioner")
    assert finish(client, job_id).state is JobState.COMPLETED
    assert records(client, job_id) == undisturbed
    assert max(row.attempts for row in stack.claimables(job_id)) == 0


def test_stage_is_held_back_with_the_reason_when_the_api_key_is_wrong(
    stack: CoordinatorStack, client: Client, fakes: Fakes, undisturbed: Records
) -> None:
    faults = fakes.summarizer.faults
    faults.call = lambda method: REFUSED if method == "ProposeConcepts" else None
    job_id = client.create_job(SPEC).id

    reason = wait_until(lambda: client.get_job(job_id).pause_reason, "the stage is held back")
    assert reason.startswith(f"Stage summarize is held back: {REFUSED.message} (next try in ")
    num_calls = faults.num_calls["ProposeConcepts"]
    wait_until(lambda: faults.num_calls["ProposeConcepts"] > num_calls, "the stage is probed")
    job = client.get_job(job_id)
    assert job.state is JobState.RUNNING
    assert job.num_failed == 0
    assert max(row.attempts for row in stack.claimables(job_id)) == 0
    faults.call = None
    client.resume_job(job_id)
    assert finish(client, job_id).state is JobState.COMPLETED
    assert records(client, job_id) == undisturbed


def test_failed_job_says_why_when_its_index_cannot_be_made(
    stack: CoordinatorStack, client: Client, fakes: Fakes, undisturbed: Records
) -> None:
    fakes.activations.faults.call = lambda m: Internal("no hooks") if m == "MergeShards" else None
    job = finish(client, client.create_job(SPEC).id)
    assert job.state is JobState.FAILED
    assert job.error == "Stage index failed: no hooks"
    assert job.units == {UnitState.FAILED: 12}
    unit = client.unit(job.id, "classifier", 3)
    assert (unit.stage, unit.error) == ("index", job.error)
    assert comparable(unit)["labels"] == []
    fakes.activations.faults.call = None
    client.retry_job(job.id)
    assert finish(client, job.id).state is JobState.COMPLETED
    assert records(client, job.id) == undisturbed
