"""Hands out work: as much as the live workers can take, fair between tenants, urgent work first.

One process leads, by a lease in the record; others stand by. What is handed out is committed first
and published after: a message that gets lost in between is found by the reconciler.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from dnd.artifacts import ArtifactStore
from dnd.errors import NotFound, Unavailable, VersionSkew
from dnd.jobs import JobState
from dnd_services.coordinator import states
from dnd_services.coordinator.budgets import Budgets
from dnd_services.coordinator.celery_app import Task
from dnd_services.coordinator.claiming import table_of
from dnd_services.coordinator.models import (
    JOB_SET_OPEN,
    SET_IN_FLIGHT,
    WORK_IN_FLIGHT,
    WORK_READY,
    CounterRow,
    ImageSetRow,
    JobRow,
    JobSetRow,
    WorkRow,
)
from dnd_services.coordinator.settings import CoordinatorSettings
from dnd_services.coordinator.sizing import size_task
from dnd_services.coordinator.store import Store
from dnd_services.coordinator.store.claims import queue, unqueue
from dnd_services.coordinator.store.health import (
    ALL_JOBS,
    Pause,
    postpone_probe,
    read_pauses,
    read_times,
)
from dnd_services.coordinator.store.leases import read_capacity
from dnd_services.coordinator.store.rows import fill_rows, jobs_to_fill, num_pending
from dnd_services.coordinator.store.sets import count_ready_sets, ready_sets
from dnd_services.coordinator.store.spending import find_spent
from dnd_services.coordinator.store.steps import fail_job, read_job

log = logging.getLogger(__name__)

SILENT_BEATS = 3
"""A worker that has missed that many heartbeats does not count as capacity."""
_IN_FLIGHT_PER_THREAD = 2
_LOOK_AHEAD = 4096
_CHUNKS_PER_ROUND = 20
_URGENT = exists().where(
    JobRow.state == JobState.RUNNING.value,
    ~JobRow.is_batch,
    CounterRow.job_id == JobRow.id,
    CounterRow.state == states.READY,
    CounterRow.num > 0,
)
"""Whether an interactive job has work that may be READY: those of its counters that a scene has."""


@dataclass
class _Scene:
    """What there is to do and who can do it, read at the start of a round.

    Attributes:
        capacity: Threads of live workers, by stage.
        slots: Tasks that may still be handed out, by stage.
        busy: Tasks that are out, by stage.
        waiting: By job and stage, how much is READY; of image sets, how many have not ended.
        num_tasks: Tasks that are out, by tenant; only of tenants with a quota.
    """

    jobs: list[JobRow]
    capacity: dict[str, int]
    slots: dict[str, int]
    busy: dict[str, int]
    waiting: dict[str, Counter[str]]
    pauses: list[Pause]
    times: dict[tuple[str, str], float]
    now: float
    num_tasks: Counter[str]
    spent: set[tuple[str, str]] = field(default_factory=set)


@dataclass(frozen=True)
class _Ready:
    """A row that can be handed out; `alone` if no other may share its task."""

    id: int
    alone: bool


class Dispatcher:
    """One round after the other; `leader.py` drives it.

    Args:
        publish: Sends a task message; raises Unavailable.
        artifacts: Where what is known of the units of a layer lies.
        budgets: Limits and quotas of tenants.
    """

    def __init__(
        self,
        store: Store,
        settings: CoordinatorSettings,
        publish: Callable[[Task], None],
        artifacts: ArtifactStore,
        budgets: Budgets | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._publish = publish
        self._artifacts = artifacts
        self._budgets = budgets or Budgets()
        self._turn = 0
        self._served: defaultdict[tuple[str, str], int] = defaultdict(int)

    def run_round(self) -> int:
        """Writes rows that are needed soon and hands out what there are workers for.

        Returns:
            The number of tasks published.

        Raises:
            Unavailable: The broker cannot be reached; what could not be published is READY again.
        """
        self._pause_spent()
        num_tasks = self._hand_out_urgent()
        self._fill_rows()
        with self._store.reading() as session:
            scene = self._look(session)
        return num_tasks + self._hand_out_all(scene)

    def _hand_out_urgent(self) -> int:
        """Hands out what interactive jobs have by now, before a round of batch work is over."""
        with self._store.reading() as session:
            if not session.scalar(select(_URGENT)):
                return 0
            scene = self._look(session)
        scene.jobs = [job for job in scene.jobs if not job.is_batch]
        return self._hand_out_all(scene)

    def _hand_out_all(self, scene: _Scene) -> int:
        """Hands out all that a scene has room for; answers how many tasks."""
        num_tasks = 0
        for stage in scene.capacity:
            while (task := self._hand_out(stage, scene)) is not None:
                scene.slots[stage] -= 1
                scene.busy[stage] += 1
                self._send(task, scene.now)
                num_tasks += 1
                if task.is_batch:
                    num_tasks += self._hand_out_urgent()
        return num_tasks

    def _pause_spent(self) -> None:
        """Holds jobs back that have used what they or their tenants may; what is out finishes."""
        with self._store.reading() as session:
            found = find_spent(session, self._budgets)
        for job_id, reason in found.items():
            with self._store.writing() as session:
                job = read_job(session, job_id)
                if job is not None and job.state == JobState.RUNNING.value:
                    job.state = JobState.PAUSED.value
                    job.pause_reason = reason
                    log.info("job %s is paused: %s", job_id, reason)

    def _fill_rows(self) -> None:
        with self._store.reading() as session:
            wanted = [
                job.id
                for job in jobs_to_fill(session)
                if num_pending(session, job.id) + self._settings.chunk_units
                <= self._settings.open_units
            ]
        for job_id in wanted:
            try:
                self._fill_rows_of(job_id)
            except VersionSkew as error:  # it waits for a leader that knows it; the others need not
                log.warning("%s", error.message)
            except NotFound as error:  # its index is gone; the other jobs have theirs
                log.error("job %s: %s", job_id, error.message)
                with self._store.writing() as session:
                    job = read_job(session, job_id)
                    if job is not None and not JobState(job.state).ended:
                        reason = f"The index of its units cannot be read: {error.message}"
                        fail_job(session, job, reason, self._store.now(session))

    def _fill_rows_of(self, job_id: str) -> None:
        """A chunk of a job's rows; several while a concept set labels them all at once."""
        for _ in range(_CHUNKS_PER_ROUND):
            with self._store.writing() as session:
                num = fill_rows(
                    session,
                    job_id,
                    self._settings.chunk_units,
                    self._artifacts,
                    self._store.now(session),
                )
                if not num or num_pending(session, job_id):
                    return

    def _look(self, session: Session) -> _Scene:
        now = self._store.now(session)
        capacity = read_capacity(session, now, SILENT_BEATS * self._settings.heartbeat_s)
        in_flight = tasks_in_flight(session)
        busy = {stage: in_flight.get(stage, 0) for stage in capacity}
        statement = select(JobRow).where(JobRow.state == JobState.RUNNING.value)
        jobs = list(session.scalars(statement.order_by(JobRow.is_batch, JobRow.id)))
        waiting: dict[str, Counter[str]] = {}
        counters = select(CounterRow.job_id, CounterRow.name, CounterRow.num).where(
            CounterRow.job_id.in_([job.id for job in jobs]),
            CounterRow.state == states.READY,
            CounterRow.num > 0,
        )
        for job_id, name, num in session.execute(counters):
            waiting.setdefault(job_id, Counter())[name.split(":")[0]] += num
        return _Scene(
            jobs=jobs,
            capacity=capacity,
            slots={
                stage: _IN_FLIGHT_PER_THREAD * threads - busy[stage]
                for stage, threads in capacity.items()
            },
            busy=busy,
            waiting=waiting,
            pauses=read_pauses(session),
            times=read_times(session),
            now=now,
            num_tasks=self._tasks_of_tenants(session, jobs),
        )

    def _tasks_of_tenants(self, session: Session, jobs: Sequence[JobRow]) -> Counter[str]:
        """Tasks that are out by tenant, of the tenants that have a quota on them."""
        tenants = {job.tenant for job in jobs if self._budgets.rules_of(job.tenant).max_tasks}
        num_tasks: Counter[str] = Counter()
        if not tenants:
            return num_tasks
        works = select(JobRow.tenant, WorkRow.task).join(WorkRow, WorkRow.job_id == JobRow.id)
        sets = (
            select(JobRow.tenant, ImageSetRow.task)
            .join(JobSetRow, JobSetRow.job_id == JobRow.id)
            .join(ImageSetRow, ImageSetRow.id == JobSetRow.set_id)
        )
        for statement in (works.where(WORK_IN_FLIGHT), sets.where(SET_IN_FLIGHT, JOB_SET_OPEN)):
            found = session.execute(statement.where(JobRow.tenant.in_(tenants)).distinct())
            num_tasks.update(tenant for tenant, _ in found)
        return num_tasks

    def _hand_out(self, stage: str, scene: _Scene) -> Task | None:
        """The next task of a stage, queued and committed; None if nothing can be handed out."""
        while (job := self._next_job(stage, scene)) is not None:
            pause = _pause_of(scene, stage, job.id)
            ids = self._choose(stage, job, scene, probe=pause is not None)
            if not ids:
                scene.spent.add((stage, job.id))
                continue
            with self._store.writing(is_urgent=not job.is_batch) as session:
                task_id = uuid.uuid4().hex
                tickets = queue(session, table_of(stage), ids, task_id, scene.now)
                if pause is not None:
                    postpone_probe(session, stage, pause.job_id, scene.now)
                    scene.spent.add((stage, job.id))
            if not tickets:  # somebody else has moved them since
                scene.spent.add((stage, job.id))
                continue
            scene.waiting[job.id][stage] -= len(tickets)
            self._turn += 1
            scene.num_tasks[job.tenant] += 1
            self._served[stage, job.tenant] = self._served[stage, job.id] = self._turn
            return Task(stage, job.is_batch, tuple(tickets), job.id, job.trace)
        return None

    def _next_job(self, stage: str, scene: _Scene) -> JobRow | None:
        """Interactive before batch; then the tenant, and of it the job, that has waited longest."""
        choice = [
            job
            for job in scene.jobs
            if stage in scene.waiting.get(job.id, ())
            and (stage, job.id) not in scene.spent
            and self._may_start(stage, job, scene)
        ]
        return min(
            choice,
            key=lambda job: (
                job.is_batch,
                self._served[stage, job.tenant],
                self._served[stage, job.id],
                job.id,
            ),
            default=None,
        )

    def _may_start(self, stage: str, job: JobRow, scene: _Scene) -> bool:
        """Whether a task of the job may go out now.

        Interactive work gets slots beyond those that batch work may fill. A stage that is held
        back gets one item at a time, when its time has come.
        """
        quota = self._budgets.rules_of(job.tenant).max_tasks
        if quota and scene.num_tasks[job.tenant] >= quota:
            return False
        extra = 0 if job.is_batch else scene.capacity[stage]
        if scene.slots[stage] + extra <= 0:
            return False
        pause = _pause_of(scene, stage, job.id)
        if pause is None:
            return True
        alone = pause.job_id != ALL_JOBS or not scene.busy[stage]
        return scene.now >= pause.probe_at and alone

    def _choose(self, stage: str, job: JobRow, scene: _Scene, *, probe: bool) -> list[int]:
        """What goes into one task: things that one call can serve, as many as fit in its time.

        It is looked up without keeping others from writing; `queue` looks again.
        """
        with self._store.reading() as session:
            num_ready = scene.waiting[job.id][stage]
            if stage == "synthesize":  # those that are being drawn are counted there too
                most = min(self._settings.max_task_items * max(scene.slots[stage], 1), _LOOK_AHEAD)
                num_ready = count_ready_sets(session, job.id, scene.now, most)
            item_s = scene.times.get((stage, job.profile), 0.0)
            size = size_task(self._settings, num_ready, scene.slots[stage], item_s)
            rows = _ready_rows(session, stage, job.id, scene.now, size)
        if not rows or probe or rows[0].alone:
            return [row.id for row in rows[:1]]
        return [row.id for row in rows if not row.alone]

    def _send(self, task: Task, now: float) -> None:
        try:
            self._publish(task)
        except Unavailable:
            with self._store.writing() as session:
                unqueue(session, table_of(task.stage), task.tickets, now + 1.0)
            raise


def tasks_in_flight(session: Session) -> dict[str, int]:
    """Tasks that are queued or running, by stage."""
    works = (
        select(WorkRow.stage, func.count(WorkRow.task.distinct()))
        .where(WORK_IN_FLIGHT)
        .group_by(WorkRow.stage)
    )
    counts = {stage: int(num) for stage, num in session.execute(works)}
    sets = session.scalar(select(func.count(ImageSetRow.task.distinct())).where(SET_IN_FLIGHT))
    if sets:
        counts["synthesize"] = int(sets)
    return counts


def _ready_rows(session: Session, stage: str, job_id: str, now: float, limit: int) -> list[_Ready]:
    """What can be handed out of a job, oldest first; `queue` locks what is chosen of it."""
    if stage == "synthesize":
        return [_Ready(r.id, r.alone) for r in ready_sets(session, job_id, now, limit)]
    statement = (
        select(WorkRow.id, WorkRow.alone, WorkRow.scope)
        .where(
            WorkRow.job_id == job_id,
            WorkRow.stage == stage,
            WORK_READY,
            WorkRow.not_before <= now,
        )
        .order_by(WorkRow.id)
        .limit(limit)
    )
    return [
        _Ready(work_id, alone or scope not in (states.SHARD, states.UNITS))
        for work_id, alone, scope in session.execute(statement)
    ]


def _pause_of(scene: _Scene, stage: str, job_id: str) -> Pause | None:
    return next(
        (p for p in scene.pauses if p.stage == stage and p.job_id in (ALL_JOBS, job_id)), None
    )
