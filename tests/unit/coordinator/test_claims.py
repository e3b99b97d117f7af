"""Exactly one worker writes each piece of work, whatever the broker delivers."""

from __future__ import annotations

import pytest
from coordinator_desk import Desk
from sqlalchemy import update

from dnd.jobs import JobSpec, JobState
from dnd_services.coordinator import states, tasks
from dnd_services.coordinator.compare import compare_layer
from dnd_services.coordinator.frozen import plan_of
from dnd_services.coordinator.models import ImageSetRow, JobLayerRow, UnitRow, WorkRow
from dnd_services.coordinator.store.claims import Ticket


def test_task_is_a_no_op_when_it_is_delivered_twice(desk: Desk, spec: JobSpec) -> None:
    job_id = desk.create(spec)
    task = desk.run_to_stage("caption")
    assert desk.runner.run(task.stage, task.tickets) == len(task.tickets)
    calls = desk.fakes.captioner.faults.num_calls["CaptionImages"]
    assert desk.runner.run(task.stage, task.tickets) == 0
    assert desk.fakes.captioner.faults.num_calls["CaptionImages"] == calls
    desk.check_counters(job_id)


def test_all_tasks_are_no_ops_when_the_job_has_ended(desk: Desk, spec: JobSpec) -> None:
    job_id = desk.create(spec)
    desk.run_until_idle()
    before = desk.records(job_id)
    for task in desk.delivered:
        assert desk.runner.run(task.stage, task.tickets) == 0
    assert desk.records(job_id) == before


@pytest.mark.parametrize("stage", ["caption", "synthesize"])
def test_write_is_refused_when_the_work_was_given_to_somebody_else(
    desk: Desk, spec: JobSpec, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = desk.create(spec)
    task = desk.run_to_stage(stage)
    table = ImageSetRow if stage == "synthesize" else WorkRow
    original = tasks.handle
    second: list[int] = []

    def slow(*args: object) -> object:
        """While the first worker is stopped its lease expires, and another one does its work."""
        results = original(*args)  # type: ignore[arg-type]
        if not second:
            second.append(0)
            desk.clock.now += 10
            desk.published.clear()  # what nobody has claimed for so long is handed out anew too
            assert desk.reconciler.sweep() >= len(task.tickets)
            desk.round()
            again = [t for t in desk.published if t.stage == stage]
            desk.published = [t for t in desk.published if t.stage != stage]
            other = desk.make_runner("other")
            second[0] = sum(other.run(t.stage, t.tickets) for t in again)
        return results

    monkeypatch.setattr(tasks, "handle", slow)
    assert desk.runner.run(task.stage, task.tickets) == 0
    assert second[0] >= len(task.tickets)
    for ticket in task.tickets:
        (row,) = desk.rows(table, id=ticket.id)
        assert (row.state, row.owner) == (states.DONE, "other")
        assert row.fence == ticket.fence + 1
    desk.check_counters(job_id)
    desk.run_until_idle()
    assert JobState(desk.job(job_id).state) is JobState.COMPLETED


def test_claim_gives_nothing_when_the_fence_is_old_or_unknown(desk: Desk, spec: JobSpec) -> None:
    desk.create(spec)
    task = desk.run_to_stage("exemplars")
    stale = [Ticket(t.id, t.fence - 1) for t in task.tickets]
    assert desk.runner.run("exemplars", [*stale, Ticket(999_999, 1)]) == 0
    assert desk.runner.run("exemplars", task.tickets) == len(task.tickets)


def test_lease_lasts_while_it_is_renewed(desk: Desk, spec: JobSpec) -> None:
    desk.create(spec)
    task = desk.run_to_stage("caption")
    (row,) = desk.rows(WorkRow, id=task.tickets[0].id)
    with desk.keeper.holding("caption", task.tickets):
        with desk.store.writing() as session:
            held = session.get_one(WorkRow, row.id)
            held.state, held.lease_until = states.RUNNING, desk.clock.now + 3
        for _ in range(5):
            desk.clock.now += 2
            desk.keeper.renew_all()
        (renewed,) = desk.rows(WorkRow, id=row.id)
        assert renewed.lease_until == desk.clock.now + 3
        assert renewed.state == states.RUNNING


def test_comparison_of_labels_is_written_by_who_holds_it(desk: Desk, spec: JobSpec) -> None:
    job_id = desk.create(spec)
    desk.run_until_idle()
    expected = {unit.ordinal: unit.auc for unit in desk.rows(UnitRow, job_id=job_id)}
    assert any(auc is not None for auc in expected.values())
    with desk.store.writing() as session:
        session.execute(update(UnitRow).values(auc=None))
        of_layers = WorkRow.stage == "score", WorkRow.scope == states.LAYER
        session.execute(update(WorkRow).where(*of_layers).values(state=states.RUNNING))
    job = desk.job(job_id)
    layers = desk.rows(JobLayerRow, job_id=job_id)
    works = {w.ordinal: w for w in desk.rows(WorkRow, stage="score", scope=states.LAYER)}

    def compare(late: int) -> dict[int, float | None]:
        for layer in layers:
            work = works[layer.place]
            ticket = Ticket(work.id, work.fence - late)
            compare_layer(desk.store, desk.services, plan_of(job), job, layer, ticket)
        return {unit.ordinal: unit.auc for unit in desk.rows(UnitRow, job_id=job_id)}

    assert set(compare(late=1).values()) == {None}
    assert compare(late=0) == expected
