"""What a cancelled job has queued is dropped, its calls end, and what others need goes on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from coordinator_desk import Desk
from coordinator_stack import Gate

from dnd.jobs import JobSpec, JobState, UnitState
from dnd_services.coordinator import states
from dnd_services.coordinator.celery_app import Task
from dnd_services.coordinator.models import ImageSetRow, WorkRow


@contextmanager
def at_work(desk: Desk, task: Task, gate: Gate) -> Iterator[Future[int]]:
    """A worker whose call of a service is held by `gate`."""
    with ThreadPoolExecutor(1) as pool:
        try:
            running = pool.submit(desk.runner.run, task.stage, task.tickets)
            gate.wait()
            yield running
        finally:
            gate.open()


def states_of(desk: Desk, task: Task) -> set[str]:
    table = ImageSetRow if task.stage == "synthesize" else WorkRow
    return {row.state for ticket in task.tickets for row in desk.rows(table, id=ticket.id)}


def test_queued_work_is_dropped_when_its_job_is_cancelled(desk: Desk, spec: JobSpec) -> None:
    job_id = desk.create(spec)
    task = desk.run_to_stage("caption")
    desk.fakes.captioner.faults.clear()
    desk.cancel(job_id)
    assert desk.runner.run(task.stage, task.tickets) == 0
    assert states_of(desk, task) == {states.CANCELLED}
    assert not desk.fakes.captioner.faults.num_calls
    desk.published.clear()
    assert desk.round() == 0  # and nothing is handed out any more
    assert set(desk.progress(job_id).units) <= {UnitState.CANCELLED, UnitState.DEAD, UnitState.TIED}
    desk.check_counters(job_id)


@pytest.mark.parametrize(
    ("stage", "method"), [("caption", "CaptionImages"), ("score", "ScoreConcepts")]
)
def test_call_ends_when_its_job_is_cancelled(
    desk: Desk, spec: JobSpec, stage: str, method: str
) -> None:
    job_id = desk.create(spec)
    task = desk.run_to_stage(stage)
    fake = desk.fakes.captioner if stage == "caption" else desk.fakes.scorer
    gate = fake.faults.call = Gate(method)
    with at_work(desk, task, gate) as running:
        desk.keeper.renew_all()
        assert not running.done()
        desk.cancel(job_id)
        desk.keeper.renew_all()
        assert running.result(30) == 0  # while the service still holds the call
    assert states_of(desk, task) == {states.CANCELLED}
    assert {row.attempts for t in task.tickets for row in desk.rows(WorkRow, id=t.id)} == {0}
    desk.check_counters(job_id)


def test_drawing_ends_when_nobody_needs_it_any_more(desk: Desk, spec: JobSpec) -> None:
    job_id = desk.create(spec)
    task = desk.run_to_stage("synthesize")
    gate = desk.fakes.synthesizer.faults.call = Gate("SynthesizeImages")
    with at_work(desk, task, gate) as running:
        desk.cancel(job_id)
        desk.keeper.renew_all()
        running.result(30)
    assert states_of(desk, task) == {states.READY}  # for whoever asks for the prompt next
    desk.fakes.synthesizer.faults.call = None
    other = desk.create(spec, "other")
    desk.clock.now += 60
    desk.run_to_end(other)
    assert states_of(desk, task) == {states.DONE}


def test_drawing_finishes_and_is_kept_when_another_job_needs_it(desk: Desk, spec: JobSpec) -> None:
    job_id, other = desk.create(spec), desk.create(spec, "other")
    task = desk.run_to_stage("synthesize")
    later = desk.run_to_stage("synthesize")  # the other job has asked for the same prompts by now
    desk.published.append(later)
    gate = desk.fakes.synthesizer.faults.call = Gate("SynthesizeImages")
    with at_work(desk, task, gate) as running:
        desk.cancel(job_id)
        desk.keeper.renew_all()
        gate.open()
        assert running.result(30) == len(task.tickets)
    assert states_of(desk, task) == {states.DONE}
    desk.clock.now += 60
    desk.run_to_end(other)
    assert JobState(desk.job(other).state) is JobState.COMPLETED


def test_drawing_is_kept_when_it_finishes_before_anybody_noticed_the_cancelling(
    desk: Desk, spec: JobSpec
) -> None:
    job_id = desk.create(spec)
    task = desk.run_to_stage("synthesize")
    gate = desk.fakes.synthesizer.faults.call = Gate("SynthesizeImages")
    with at_work(desk, task, gate) as running:
        desk.cancel(job_id)
        gate.open()
        assert running.result(30) == len(task.tickets)
    assert states_of(desk, task) == {states.DONE}
