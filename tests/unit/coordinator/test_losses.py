"""What got lost is found, and what only waits is left alone."""

from __future__ import annotations

from coordinator_desk import PLAIN, Desk

from dnd.errors import Unavailable
from dnd.jobs import JobSpec, JobState, LayerUnits, UnitState
from dnd_services.coordinator import states
from dnd_services.coordinator.celery_app import Task
from dnd_services.coordinator.models import JobLayerRow, WorkRow
from dnd_services.coordinator.reconciler import MAX_LOSSES
from dnd_services.coordinator.store.claims import Ticket, take
from dnd_services.coordinator.store.leases import beat

TWO_UNITS = JobSpec("tiny", (LayerUnits("classifier", (0, 3)),), "shapes", "starter", PLAIN)


def vanish(desk: Desk, task: Task) -> None:
    """A worker claims a task and is gone."""
    with desk.store.writing() as session:
        until = desk.clock.now + desk.settings.lease_s
        assert take(session, WorkRow, task.tickets, "gone", until)
    desk.clock.now += desk.settings.lease_s + 1


def test_unit_is_ready_again_when_its_message_was_lost(desk: Desk, spec: JobSpec) -> None:
    desk.create(spec)
    task = desk.run_to_stage("caption")
    desk.published.clear()
    assert desk.reconciler.sweep() == 0
    desk.clock.now += desk.settings.lease_s + 1
    assert desk.reconciler.sweep() >= len(task.tickets)
    rows = [row for t in task.tickets for row in desk.rows(WorkRow, id=t.id)]
    assert {row.state for row in rows} == {states.READY}
    assert {row.losses for row in rows} == {0}


def test_only_the_message_that_was_lost_is_sent_again_when_all_threads_are_busy(
    desk: Desk, spec: JobSpec
) -> None:
    """Others of its stage wait in the queue for longer than a lease, and go on waiting."""
    desk.tune(min_task_items=1, max_task_items=1)
    desk.create(spec)
    lost = desk.run_to_stage("caption")
    desk.round()
    waiting = [task for task in desk.published if task.stage == "caption"]
    assert waiting
    desk.clock.now += desk.settings.lease_s + 1
    assert desk.reconciler.sweep() == len(lost.tickets)
    found = {row.id: row.state for row in desk.rows(WorkRow, stage="caption")}
    assert {found[ticket.id] for ticket in lost.tickets} == {states.READY}
    assert {found[t.id] for task in waiting for t in task.tickets} == {states.QUEUED}


def test_messages_are_left_alone_when_the_broker_is_away(desk: Desk, spec: JobSpec) -> None:
    """What a worker held that went away is found all the same."""
    desk.create(spec)
    task = desk.run_to_stage("caption")
    vanish(desk, desk.run_to_stage("summarize"))

    def refuse(stage: str) -> set[Ticket]:
        raise Unavailable("no broker")

    desk.reconciler._waiting = refuse
    assert desk.reconciler.sweep() > 0
    found = {row.id: row.state for row in desk.rows(WorkRow, stage="caption")}
    assert {found[ticket.id] for ticket in task.tickets} == {states.QUEUED}
    assert desk.rows(WorkRow, stage="summarize", state=states.RUNNING) == []


def test_unit_fails_alone_when_its_worker_always_goes_away(desk: Desk) -> None:
    job_id = desk.create(TWO_UNITS)
    sizes = []
    lost = 0
    for _ in range(MAX_LOSSES):
        task = desk.run_to_stage("caption")
        sizes.append(len(task.tickets))
        lost = task.tickets[0].id
        vanish(desk, task)
        desk.published.clear()
        desk.reconciler.sweep()
    desk.run_until_idle()
    assert sizes == [2, 2, 1, 1, 1]  # who went away twice goes alone
    (row,) = desk.rows(WorkRow, id=lost)
    assert (row.state, row.losses, row.attempts) == (states.FAILED, MAX_LOSSES, 0)
    assert JobState(desk.job(job_id).state) is JobState.COMPLETED
    assert [unit.state for unit in desk.units(job_id)] == [UnitState.FAILED, UnitState.LABELED]
    assert "went away 5 times" in desk.records(job_id)[0]["error"]
    desk.check_counters(job_id)


def test_work_is_ready_again_when_the_broker_is_away(desk: Desk, spec: JobSpec) -> None:
    job_id = desk.create(spec)

    def refuse(task: Task) -> None:
        raise Unavailable("no broker")

    publish, desk.dispatcher._publish = desk.dispatcher._publish, refuse
    for _ in range(3):
        try:
            desk.round()
        except Unavailable:
            desk.clock.now += 2
        else:
            raise AssertionError("the dispatcher must say that the broker is away")
    assert desk.rows(WorkRow, state=states.QUEUED) == []
    desk.dispatcher._publish = publish
    desk.run_until_idle()
    assert JobState(desk.job(job_id).state) is JobState.COMPLETED
    desk.check_counters(job_id)


def test_job_fails_alone_when_its_index_is_gone(desk: Desk, spec: JobSpec) -> None:
    broken = desk.create(spec, "broken")
    while desk.job(broken).num_live < 0:
        for task in desk.published:
            desk.runner.run(task.stage, task.tickets)
        desk.published.clear()
        with desk.store.writing() as session:
            beat(session, "worker", ["index"], 2, desk.clock.now)
        desk.tune(open_units=0)
        desk.dispatcher.run_round()
    desk.tune(open_units=4000)
    with desk.store.writing() as session:
        session.get_one(JobLayerRow, (broken, 0)).activities_ref = "sha256:" + "0" * 64
    other = desk.create(spec, "other")
    desk.run_until_idle()
    assert JobState(desk.job(other).state) is JobState.COMPLETED
    assert JobState(desk.job(broken).state) is JobState.FAILED
    assert "The index of its units cannot be read" in desk.job(broken).error
