"""Who gets work: urgent jobs first, tenants in turn, no more than the workers can take."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from coordinator_desk import SMALL, STAGES, Desk

from dnd.errors import DeadlineExceeded, DigestMismatch
from dnd.jobs import JobSpec, JobState, LayerUnits
from dnd.types import Priority
from dnd_services.coordinator.budgets import Budgets, TenantRules
from dnd_services.coordinator.celery_app import Task
from dnd_services.coordinator.models import JobRow, StagePauseRow, WorkRow
from dnd_services.coordinator.states import READY


def jobs_of(desk: Desk, stage: str) -> list[str]:
    """Jobs of the tasks of a stage, in the order in which they were handed out."""
    found = []
    for task in desk.delivered:
        if task.stage == stage:
            (row,) = desk.rows(WorkRow, id=task.tickets[0].id)
            found.append(row.job_id)
    return found


def test_tenants_take_turns_when_one_came_first_with_more_jobs(desk: Desk, spec: JobSpec) -> None:
    greedy = []
    for number in range(3):
        greedy.append(desk.create(spec, str(number), tenant="greedy"))
        desk.clock.now += 1
    modest = desk.create(spec, "0", tenant="modest")
    desk.round()
    first_four = jobs_of(desk, "index")[:4]
    assert Counter(first_four) == Counter([*greedy, modest])
    assert first_four.index(modest) == 1


def test_interactive_job_overtakes_when_batch_work_fills_the_slots(
    desk: Desk, spec: JobSpec
) -> None:
    desk.tune(min_task_items=1)
    photos = replace(spec, probe="photos")  # 8 shards: more than there are slots
    batch = desk.create(photos, "batch")
    desk.round()
    assert jobs_of(desk, "index") == [batch] * 4
    urgent = desk.create(replace(photos, priority=Priority.INTERACTIVE), "urgent")
    desk.round()
    assert jobs_of(desk, "index") == [batch] * 4 + [urgent] * 2
    assert {task.queue for task in desk.published[4:]} == {"dnd.index.interactive"}


def test_no_more_is_handed_out_than_the_workers_can_take(desk: Desk, spec: JobSpec) -> None:
    desk.tune(min_task_items=1)
    desk.create(replace(spec, probe="photos"))
    for _ in range(3):
        desk.round()
    assert len(desk.published) == 4  # two for each of two threads


def test_only_the_job_is_held_back_that_is_frozen_to_other_weights(
    desk: Desk, spec: JobSpec
) -> None:
    frozen = desk.create(spec, "frozen")
    before = desk.fakes.captioner.digest
    try:
        desk.fakes.captioner.digest = "0" * 64
        other = desk.create(replace(spec, seed=8), "other")
        desk.run_until_idle()
        assert JobState(desk.job(other).state) is JobState.COMPLETED
        assert JobState(desk.job(frozen).state) is JobState.RUNNING
        reason = desk.progress(frozen).pause_reason
        assert reason.startswith("Stage caption is held back: ")
        assert desk.progress(other).pause_reason == ""
        rows = desk.rows(WorkRow, job_id=frozen, stage="caption")
        assert {row.attempts for row in rows} == {0}
    finally:
        desk.fakes.captioner.digest = before
    for _ in range(20):  # probes become rarer, and one that succeeds lets all of it go on
        desk.clock.now += 60
        desk.run_until_idle()
    assert JobState(desk.job(frozen).state) is JobState.COMPLETED
    assert desk.progress(frozen).pause_reason == ""


def test_probe_failing_again_makes_the_wait_longer(desk: Desk, spec: JobSpec) -> None:
    job_id = desk.create(spec)
    desk.fakes.summarizer.faults.call = lambda _: DigestMismatch("other weights")
    delays = []
    for _ in range(4):
        desk.run_until_idle()
        (pause,) = desk.rows(StagePauseRow)
        delays.append(pause.delay_s)
        desk.clock.now = pause.probe_at + 60  # the unit's own wait is over too
    assert delays == [5.0, 10.0, 20.0, 40.0]
    desk.fakes.summarizer.faults.call = None
    desk.run_until_idle()
    assert JobState(desk.job(job_id).state) is JobState.COMPLETED


def test_items_go_alone_once_their_call_has_run_into_its_deadline_twice(
    desk: Desk, spec: JobSpec
) -> None:
    """Not before: when a service is silent all calls do, whatever they are for."""
    desk.create(replace(spec, layers=(LayerUnits("features.conv", (10, 11, 12)),)))
    faults = desk.fakes.captioner.faults
    faults.call = lambda name: DeadlineExceeded("late") if name == "CaptionImages" else None
    alone = []
    for _ in range(2):
        task = desk.run_to_stage("caption")
        assert len(task.tickets) == 3
        desk.runner.run(task.stage, task.tickets)
        alone.append({row.alone for t in task.tickets for row in desk.rows(WorkRow, id=t.id)})
        desk.clock.now += 2  # their wait is over
    assert alone == [{False}, {True}]


FEW = {**SMALL, "propose.max_candidates": "2"}
HUGE = JobSpec(
    "wide",
    (LayerUnits("encoder"),),
    "shapes",
    "starter",
    {
        **SMALL,
        "index.keep_matrix": "false",
        "score.probe_correlation": "false",
        "propose.max_candidates": "1",
        "synthesis.num_images": "2",
    },
)
"""A million units; few drawings, as the fake measures a million units on each."""
TEN = JobSpec(
    "tiny",
    (LayerUnits("features.conv", tuple(range(14, 24))),),
    "shapes",
    "starter",
    SMALL,
    priority=Priority.INTERACTIVE,
)


def count_rounds(desk: Desk, job_id: str) -> int:
    """Rounds of dispatching and working until a job has ended."""
    for number in range(200):
        if JobState(desk.job(job_id).state).ended:
            return number
        desk.round()
        desk.work()
    raise AssertionError(f"the job never ends: {desk.progress(job_id)}")


def test_huge_batch_job_delays_an_interactive_one_by_its_running_tasks_only(desk: Desk) -> None:
    """In each round all that is out is worked off, so one round is the time of what is running."""
    desk.tune(min_task_items=1, max_task_items=2)  # there is always more than may be handed out
    desk.tune(chunk_units=1000, open_units=5000)
    alone = count_rounds(desk, desk.create(TEN, "alone", tenant="alone"))
    batch = desk.create(HUGE, "batch")
    while not any(task.stage == "score" for task in desk.published):
        desk.work()
        desk.round()
    already_out = len(desk.published)
    urgent = desk.create(TEN, "urgent", tenant="urgent")
    desk.delivered.clear()
    assert count_rounds(desk, urgent) <= alone + 1  # the round that is under way
    assert not JobState(desk.job(batch).state).ended
    assert already_out <= 4 * len(STAGES)  # two tasks for each of two threads of a stage
    assert len(desk.rows(WorkRow, job_id=batch, state=READY)) > 3000
    for stage in ("exemplars", "caption", "summarize", "synthesize", "score"):
        assert any(task.stage == stage and not task.is_batch for task in desk.delivered)


def test_interactive_work_goes_out_before_the_rest_of_a_round_of_batch_work(
    desk: Desk, spec: JobSpec
) -> None:
    """A round takes as long as all that it hands out takes to be written."""
    desk.tune(min_task_items=1, max_task_items=1)
    for number in range(2):
        desk.create(spec, f"batch {number}")
    urgent = []

    def publish(task: Task) -> None:
        desk.publish(task)
        if not urgent:
            urgent.append(desk.create(TEN, "urgent", tenant="urgent"))

    desk.dispatcher._publish = publish
    desk.round()
    first, second, *rest = desk.delivered
    assert (first.is_batch, second.is_batch) == (True, False)
    assert any(task.is_batch for task in rest)


def test_tenant_has_as_many_tasks_out_as_its_quota(desk: Desk, spec: JobSpec) -> None:
    desk.tune(min_task_items=1, max_task_items=1)
    desk.use(Budgets(tenants={"a": TenantRules(max_tasks=3)}))
    spec = replace(spec, layers=(LayerUnits("features.conv", (10, 11, 12)),), overrides=FEW)
    mine = {desk.create(replace(spec, seed=n), str(n), tenant="a") for n in (7, 8)}
    other = desk.create(spec, tenant="b")
    for _ in range(200):
        desk.round()
        with desk.store.reading() as session:
            jobs = [session.get_one(JobRow, job_id) for job_id in mine]
            assert desk.dispatcher._tasks_of_tenants(session, jobs)["a"] <= 3
        if not desk.work():
            break
    for job_id in (*mine, other):
        assert JobState(desk.job(job_id).state) is JobState.COMPLETED
