"""Workers, the coordinator and the broker come and go: the labels are those of a quiet run."""

from __future__ import annotations

from typing import Any

import pytest
from coordinator_stack import SPEC, CoordinatorStack, Gate, finish, records, wait_until

from dnd.client import Client
from dnd.jobs import JobState
from dnd.testing import Fakes
from dnd_services.coordinator.models import WorkRow

Records = list[dict[str, Any]]


def test_labels_are_equal_and_drawings_made_once_when_four_workers_share_two_jobs(
    stack: CoordinatorStack, client: Client, fakes: Fakes, undisturbed: Records
) -> None:
    stack.start_workers("second", "third", "fourth", threads=1)
    fakes.captioner.faults.latency_s = fakes.summarizer.faults.latency_s = 0.1
    ids = [client.create_job(SPEC).id for _ in range(2)]
    for job_id in ids:
        assert finish(client, job_id).state is JobState.COMPLETED
        assert records(client, job_id) == undisturbed
        owners = {work.owner for work in stack.rows(WorkRow, job_id=job_id)} - {""}
        assert len(owners) > 1
    # Units of both jobs have asked for the same prompts at once: each drawing was made once.
    drawn = fakes.synthesizer.faults.num_items
    assert len(drawn) > 12
    assert set(drawn.values()) == {1}
    for name in ("second", "third", "fourth"):
        assert stack.stop_worker(name) == 0


@pytest.mark.parametrize(
    ("service", "gate"),
    [
        ("captioner", Gate("CaptionImages")),
        ("scorer", Gate("EmbedTexts")),  # of the bank
        ("scorer", Gate("EmbedTexts", num_free=1)),  # of labels
    ],
    ids=["caption", "bank", "calibrate"],
)
def test_job_completes_when_a_worker_is_killed_and_restarted(
    stack: CoordinatorStack,
    client: Client,
    fakes: Fakes,
    undisturbed: Records,
    service: str,
    gate: Gate,
) -> None:
    getattr(fakes, service).faults.call = gate
    job_id = client.create_job(SPEC).id
    gate.wait()
    stack.kill_worker("first")
    gate.open()
    stack.start_workers("first")
    job = finish(client, job_id)
    assert job.state is JobState.COMPLETED
    assert records(client, job_id) == undisturbed
    rows = stack.claimables(job_id)
    assert max(row.losses for row in rows) > 0
    assert max(row.attempts for row in rows) == 0


def test_job_completes_when_the_coordinator_is_killed_and_restarted(
    stack: CoordinatorStack, client: Client, fakes: Fakes, undisturbed: Records, tenant: str
) -> None:
    gate = fakes.summarizer.faults.call = Gate("ProposeConcepts")
    job_id = client.create_job(SPEC).id
    gate.wait()
    stack.kill_coordinator()
    gate.open()
    stack.start_coordinator()
    with stack.client(tenant) as again:
        assert finish(again, job_id).state is JobState.COMPLETED
        assert records(again, job_id) == undisturbed


def test_job_completes_when_the_broker_is_flushed(
    stack: CoordinatorStack, client: Client, fakes: Fakes, undisturbed: Records
) -> None:
    gate = fakes.captioner.faults.call = Gate("CaptionImages")
    job_id = client.create_job(SPEC).id
    gate.wait()
    wait_until(stack.num_messages, "messages wait in the broker")
    stack.redis.flushall()
    gate.open()
    assert finish(client, job_id).state is JobState.COMPLETED
    assert records(client, job_id) == undisturbed
    assert max(row.dispatches for row in stack.claimables(job_id)) > 1


def test_job_completes_when_the_broker_is_killed_while_all_threads_work(
    stack: CoordinatorStack, client: Client, fakes: Fakes, undisturbed: Records
) -> None:
    gate = fakes.captioner.faults.call = Gate("CaptionImages")
    job_id = client.create_job(SPEC).id

    def tasks() -> set[str]:
        rows = stack.rows(WorkRow, job_id=job_id, stage="caption", state="RUNNING")
        return {row.task for row in rows}

    wait_until(lambda: len(tasks()) == 2, "both threads work")
    before = stack.log("first").count("Couldn't ack")
    stack.kill_broker()
    gate.open()
    wait_until(
        lambda: stack.log("first").count("Couldn't ack") == before + 2,
        "both tasks have ended without the broker",
    )
    stack.start_broker()
    assert finish(client, job_id).state is JobState.COMPLETED
    assert records(client, job_id) == undisturbed


def test_late_write_is_refused_when_a_stopped_worker_wakes_up(
    stack: CoordinatorStack, client: Client, fakes: Fakes, undisturbed: Records
) -> None:
    stack.kill_worker("first")
    stack.start_workers("sleeper")
    gate = fakes.captioner.faults.call = Gate("CaptionImages")
    job_id = client.create_job(SPEC).id
    gate.wait()
    held = wait_until(
        lambda: stack.rows(WorkRow, job_id=job_id, stage="caption", state="RUNNING"), "work runs"
    )
    stack.freeze_worker("sleeper")
    gate.open()
    stack.start_workers("first")
    assert finish(client, job_id).state is JobState.COMPLETED
    stack.thaw_worker("sleeper")
    wait_until(lambda: "came too late" in stack.log("sleeper"), "the late write is refused")
    assert records(client, job_id) == undisturbed
    now = {row.id: row for row in stack.rows(WorkRow, job_id=job_id, stage="caption")}
    for row in held:
        assert now[row.id].fence > row.fence
        assert now[row.id].owner != row.owner
        assert now[row.id].attempts == 0
