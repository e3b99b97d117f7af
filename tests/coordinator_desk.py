"""A coordinator without processes: rounds and tasks one after the other, on a made clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from dnd import keys
from dnd.clients import Services
from dnd.jobs import STAGES, JobSpec, JobState, Limits, spec_to_message
from dnd.testing import Fakes
from dnd.types import Priority, RequestContext
from dnd_services.coordinator import frozen, views
from dnd_services.coordinator.budgets import Budgets
from dnd_services.coordinator.celery_app import Task
from dnd_services.coordinator.dispatcher import Dispatcher
from dnd_services.coordinator.keeper import LeaseKeeper
from dnd_services.coordinator.migrate import migrate
from dnd_services.coordinator.models import CounterRow, JobRow, UnitRow, WorkRow
from dnd_services.coordinator.planning import Planner
from dnd_services.coordinator.reconciler import Reconciler
from dnd_services.coordinator.settings import CoordinatorSettings
from dnd_services.coordinator.states import counter_name
from dnd_services.coordinator.store import Store, deleting, jobs, reading
from dnd_services.coordinator.store.claims import Ticket
from dnd_services.coordinator.store.counters import UNIT, read_counters
from dnd_services.coordinator.store.leases import beat
from dnd_services.coordinator.tasks import TaskRunner

PLAIN = {"calibration.enabled": "false"}
SMALL = {
    "synthesis.num_images": "3",
    "synthesis.min_images": "2",
    "exemplars.num_exemplars": "5",
    **PLAIN,
}
CALIBRATED = {
    **SMALL,
    "calibration.enabled": "true",
    "calibration.num_concepts": "12",
    "calibration.num_bank_images": "2",
    "calibration.num_images": "2",
}


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Desk:
    """One coordinator and one worker in this thread.

    Attributes:
        published: Task messages that nobody has taken yet.
        delivered: All messages that were ever published.
    """

    store: Store
    fakes: Fakes
    services: Services
    settings: CoordinatorSettings
    clock: Clock
    budgets: Budgets = field(default_factory=Budgets)
    published: list[Task] = field(default_factory=list)
    delivered: list[Task] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.use(self.budgets)
        self.reconciler = Reconciler(self.store, self.settings, self.waiting)
        self.keeper = LeaseKeeper(self.store, self.settings, "worker")
        self.runner = self.make_runner("worker")
        self.planner = Planner(self.services, quick_s=5.0)

    def use(self, budgets: Budgets) -> None:
        """Another budgets file, as after a restart."""
        self.budgets = budgets
        self.dispatcher = Dispatcher(
            self.store, self.settings, self.publish, self.fakes.artifacts, budgets
        )

    def tune(self, **settings: object) -> None:
        """Changes settings of the running coordinator."""
        for name, value in settings.items():
            object.__setattr__(self.settings, name, value)

    def make_runner(self, owner: str) -> TaskRunner:
        return TaskRunner(
            self.store, self.services, self.settings, self.keeper, owner, nudge=lambda: None
        )

    def publish(self, task: Task) -> None:
        self.published.append(task)
        self.delivered.append(task)

    def waiting(self, stage: str) -> set[Ticket]:
        """Tickets of the messages of a stage that nobody has taken yet."""
        return {t for task in self.published if task.stage == stage for t in task.tickets}

    def create(self, spec: JobSpec, request_id: str = "r", tenant: str = "default") -> str:
        """Makes a job as the API does; its id."""
        context = RequestContext(tenant=tenant)
        planned = self.planner.plan(spec, context)
        frozen_to = frozen.freeze(
            model=spec.model,
            layers=[layer.layer for layer in planned.layers],
            probe=spec.probe,
            probe_set=planned.probe_set,
            profile=planned.profile,
            seed=spec.seed,
            digests=self.planner.read_digests(planned, context),
            bank=planned.bank,
            method=spec.method,
            concept_set=spec.concept_set,
            concepts_ref=planned.concepts_ref,
            price=self.budgets.prices.get(self.planner.find_llm(planned, context)),
        )
        new = jobs.NewJob(
            tenant=tenant,
            request_id=request_id,
            body_hash=keys.digest_of(repr(spec)),
            spec=spec_to_message(spec).SerializeToString(),
            profile=planned.profile.name,
            is_batch=spec.priority is Priority.BATCH,
            layers=planned.layers,
            num_shards=-(-planned.probe_set.num_images // planned.profile.index.shard_images),
            num_skipped_images=planned.probe_set.num_skipped,
            method=spec.method,
            limits=spec.limits,
            max_jobs=self.budgets.rules_of(tenant).max_jobs,
            frozen=frozen_to,
            bank=frozen.bank_needs(tenant, frozen.make_plan(frozen_to), shared=False),
        )
        return jobs.create_job(self.store, new).id

    def round(self) -> int:
        """One round of the dispatcher, with a live worker for each stage."""
        with self.store.writing() as session:
            beat(session, "worker", STAGES, 2, self.clock.now)
        return self.dispatcher.run_round()

    def work(self) -> int:
        """Runs what is published; answers how many items were written."""
        tasks, self.published = self.published, []
        return sum(self.runner.run(task.stage, task.tickets) for task in tasks)

    def run_until_idle(self, max_rounds: int = 400) -> None:
        """Dispatches and works until nothing is handed out any more, at the present time."""
        for _ in range(max_rounds):
            if not self.round() and not self.published:
                return
            self.work()
        raise AssertionError("the job never comes to rest")

    def run_to_end(self, job_id: str) -> None:
        """Works until a job has ended, however long its items have to wait in between."""
        for _ in range(20):
            self.run_until_idle()
            if JobState(self.job(job_id).state).ended:
                return
            self.clock.now += 60
        raise AssertionError(f"the job never ends: {self.progress(job_id)}")

    def retry(self, job_id: str) -> None:
        with self.store.writing() as session:
            jobs.retry_job(session, session.get_one(JobRow, job_id), self.clock.now)

    def cancel(self, job_id: str) -> None:
        with self.store.writing() as session:
            jobs.cancel_job(session, session.get_one(JobRow, job_id), self.clock.now)

    def delete(self, job_id: str) -> None:
        with self.store.writing() as session:
            deleting.delete_job(session, session.get_one(JobRow, job_id), self.clock.now)

    def sweep_until_purged(self) -> None:
        """Sweeps until no deleted job has rows."""
        for _ in range(200):
            with self.store.reading() as session:
                if not deleting.deleted_jobs(session):
                    return
            self.reconciler.sweep()
        raise AssertionError("rows of a deleted job are never removed")

    def resume(self, job_id: str, limits: Limits | None = None) -> None:
        with self.store.writing() as session:
            job = session.get_one(JobRow, job_id)
            jobs.resume_job(session, job, self.clock.now, limits)

    def run_to_stage(self, stage: str) -> Task:
        """Works until a task of a stage is published; that task, not yet run."""
        for _ in range(400):
            self.round()
            for task in list(self.published):
                self.published.remove(task)
                if task.stage == stage:
                    return task
                self.runner.run(task.stage, task.tickets)
        raise AssertionError(f"no task of stage {stage}")

    def job(self, job_id: str) -> JobRow:
        with self.store.reading() as session:
            return session.get_one(JobRow, job_id)

    def progress(self, job_id: str) -> reading.Progress:
        with self.store.reading() as session:
            job = session.get_one(JobRow, job_id)
            return reading.read_progress(session, [job], self.clock.now, 60.0)[0]

    def units(self, job_id: str) -> list[reading.UnitView]:
        with self.store.reading() as session:
            job = session.get_one(JobRow, job_id)
            return reading.list_units(session, job, "", None, 0, 10_000)

    def records(self, job_id: str) -> list[dict[str, Any]]:
        """Records of all units but for what may differ: job id and timings."""
        job = self.job(job_id)
        found = []
        for view in self.units(job_id):
            error = views.error_of(job, view)
            record = views.read_record(job, view, self.fakes.artifacts, error)
            del record["job"], record["timings"]
            found.append(record)
        return found

    def rows(self, table: Any, **equal: Any) -> list[Any]:
        with self.store.reading() as session:
            return list(session.scalars(select(table).filter_by(**equal)))

    def check_counters(self, job_id: str) -> None:
        check_counters(self.store, job_id)


@contextmanager
def open_desk(fakes: Fakes, folder: Path) -> Iterator[Desk]:
    """A desk with a record in `folder`."""
    settings = CoordinatorSettings(
        artifacts=str(fakes.artifacts.root),
        database=f"sqlite:///{folder}/record.db",
        redis="redis://127.0.0.1:1/0",
        **fakes.targets,
        lease_s=3.0,
        renew_s=1.0,
        sweep_s=1.0,
        rpc_deadline_s=20.0,
    )
    clock = Clock()
    store = Store(settings.database, clock)
    migrate(store)
    services = Services.connect(fakes.targets, fakes.artifacts, deadline_s=20.0)
    yield Desk(store, fakes, services, settings, clock)
    services.close()
    store.close()


def check_counters(store: Store, job_id: str) -> None:
    """Counters equal what a count of the rows gives."""
    with store.reading() as session:
        counters = read_counters(session, job_id)
        counted: dict[str, dict[str, int]] = {}
        works = (
            select(WorkRow.stage, WorkRow.scope, WorkRow.state, func.count())
            .where(WorkRow.job_id == job_id)
            .group_by(WorkRow.stage, WorkRow.scope, WorkRow.state)
        )
        for stage, scope, state, num in session.execute(works):
            counted.setdefault(counter_name(stage, scope), {})[state] = num
        units = (
            select(UnitRow.state, func.count())
            .where(UnitRow.job_id == job_id)
            .group_by(UnitRow.state)
        )
        counted[UNIT] = {row[0]: row[1] for row in session.execute(units)}
        assert session.scalar(select(func.min(CounterRow.num))) >= 0
    for name in counted:
        states = {s: n for s, n in counters.get(name, {}).items() if n and s != "SETTLED"}
        assert states == counted[name], name
