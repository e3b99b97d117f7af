"""A coordinator as an operator runs it: processes and a broker, on fakes of the stage services."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
from processes import PYTHON, SOURCE
from sqlalchemy import select

from dnd.client import Client, UnitResult
from dnd.errors import DndError
from dnd.jobs import Job, JobSpec, LayerUnits
from dnd.stack.valkey import answers, free_port, valkey_program, valkey_url
from dnd.testing import Fakes
from dnd_services.coordinator.models import ImageSetRow, JobSetRow, LeaseRow, WorkRow
from dnd_services.coordinator.store import Store

START_S = 180.0
SETTINGS: dict[str, object] = {
    "lease_s": 3,
    "renew_s": 1,
    "heartbeat_s": 1,
    "sweep_s": 0.5,
    "leader_s": 3,
    "pause_s": 0.5,
    "backoff_s": 0.2,
    "freeze_s": 2,
    "rpc_deadline_s": 20,
    "down_s": 1,
    "drain_s": 1,
}
SPEC = JobSpec(
    model="tiny",
    layers=(LayerUnits("features.conv", tuple(range(7, 17))), LayerUnits("classifier", (0, 3))),
    probe="shapes",
    profile="starter",
    overrides={
        "synthesis.num_images": "3",
        "synthesis.min_images": "2",
        "exemplars.num_exemplars": "5",
        "calibration.num_concepts": "12",
        "calibration.num_bank_images": "2",
        "calibration.num_images": "2",
    },
    seed=7,
)
"""12 units of two layers: of them dead 1, tied 1, sparse 1."""

T = TypeVar("T")
Process = subprocess.Popen[bytes]


@dataclass
class Gate:
    """A fault of a fake service that holds every call of one method until it is opened.

    Attributes:
        num_free: Calls that pass before the first one is held.
        entered: Set once a call is held.
    """

    method: str
    error: DndError | None = None
    num_free: int = 0
    entered: threading.Event = field(default_factory=threading.Event)
    _opened: threading.Event = field(default_factory=threading.Event)

    def __call__(self, method: str) -> DndError | None:
        if method != self.method:
            return None
        self.num_free -= 1
        if self._opened.is_set() or self.num_free >= 0:
            return None
        self.entered.set()
        self._opened.wait(START_S)
        return self.error

    def wait(self) -> None:
        """Returns once a call is held."""
        assert self.entered.wait(START_S), f"{self.method} was never called"

    def open(self) -> None:
        """Lets all calls pass, the held ones too."""
        self._opened.set()


@dataclass
class CoordinatorStack:
    """Processes of one coordinator. `start_stack` ends all of them, whatever happens.

    Attributes:
        workers: Worker processes by the name they were started under.
        source: Where the modules are of processes that are started from now on.
    """

    folder: Path
    fakes: Fakes
    settings: dict[str, object]
    database: str = ""
    broker_port: int = 0
    broker: Process | None = None
    coordinator: Process | None = None
    workers: dict[str, Process] = field(default_factory=dict)
    source: Path = SOURCE

    def __post_init__(self) -> None:
        self.broker_port = self.broker_port or free_port()
        self.store = Store(self.database or f"sqlite:///{self.folder}/record.db")
        self.redis = redis.Redis.from_url(self.redis_url)

    @property
    def redis_url(self) -> str:
        return valkey_url(self.broker_port)

    def start_broker(self) -> None:
        program = valkey_program(self.folder / "valkey", self.broker_port, {})
        self.broker = self._spawn("valkey", program.command, {})
        wait_until(lambda: answers(self.broker_port), "the broker answers")

    def start_coordinator(self) -> None:
        """Starts the coordinator and waits until it serves."""
        self._ready_file("coordinator").unlink(missing_ok=True)
        self.coordinator = self._start("coordinator", "coordinator", {})
        self._wait_for("coordinator", self.coordinator)

    def start_workers(self, *names: str, **settings: object) -> None:
        """Starts worker processes at the same time and waits until all are ready."""
        settings = {"stage": "all", "threads": 2} | settings
        for name in names:
            self._ready_file(name).unlink(missing_ok=True)
            self.workers[name] = self._start(name, "coordinator.worker", settings)
        for name in names:
            self._wait_for(name, self.workers[name])

    def kill_broker(self) -> None:
        self.broker = _kill(self.broker)

    def kill_coordinator(self) -> None:
        self.coordinator = _kill(self.coordinator)

    def kill_worker(self, name: str) -> None:
        _kill(self.workers.pop(name))

    def stop_worker(self, name: str) -> int:
        """Ends a worker with SIGTERM; its exit status."""
        process = self.workers.pop(name)
        process.terminate()
        return process.wait(30)

    def leads_until(self) -> float:
        """The end of the leader's lease: it moves on as long as the dispatcher looks for work."""
        return max((row.until for row in self.rows(LeaseRow)), default=0.0)

    def freeze_worker(self, name: str) -> None:
        """Stops a worker, but not in the middle of a write: on SQLite all others would wait."""
        with self.store.writing():
            self.workers[name].send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self.workers[name].pid, os.WSTOPPED | os.WNOWAIT)

    def thaw_worker(self, name: str) -> None:
        self.workers[name].send_signal(signal.SIGCONT)

    @contextmanager
    def client(self, tenant: str, retry_s: float = 10.0) -> Iterator[Client]:
        """A client on behalf of a tenant; tenants share no drawings."""
        address = json.loads(self._ready_file("coordinator").read_text())["address"]
        with Client(address, tenant=tenant, deadline_s=60.0, retry_s=retry_s) as client:
            yield client

    def web_url(self) -> str:
        """Where the coordinator serves REST."""
        return str(json.loads(self._ready_file("coordinator").read_text())["web"])

    def rows(self, table: type[T], **equal: Any) -> list[T]:
        """Rows of the record, looked up beside the coordinator."""
        with self.store.reading() as session:
            return list(session.scalars(select(table).filter_by(**equal)))

    def claimables(self, job_id: str) -> list[WorkRow | ImageSetRow]:
        """All work of a job, and all image sets that it has asked for."""
        asked = {pair.set_id for pair in self.rows(JobSetRow, job_id=job_id)}
        sets = [row for row in self.rows(ImageSetRow) if row.id in asked]
        return [*self.rows(WorkRow, job_id=job_id), *sets]

    def num_messages(self) -> int:
        """Task messages that nobody has taken yet."""
        return sum(self.redis.llen(key) for key in self.redis.keys("dnd.*"))  # type: ignore[misc,union-attr]

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def close(self) -> None:
        for process in (*self.workers.values(), self.coordinator, self.broker):
            _kill(process)
        self.redis.close()
        self.store.close()

    def _ready_file(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _start(self, name: str, module: str, settings: Mapping[str, object]) -> Process:
        variables = {
            "artifacts": self.fakes.artifacts.root,
            "database": self.store.url,
            "redis": self.redis_url,
            **self.fakes.targets,
            **self.settings,
            **settings,
            "endpoints_file": self._ready_file(name),
        }
        environment = {f"DND_{key.upper()}": str(value) for key, value in variables.items()}
        command = [PYTHON, "-P", "-m", f"dnd_services.{module}"]
        return self._spawn(name, command, environment | {"PYTHONPATH": str(self.source)})

    def _spawn(self, name: str, command: Sequence[str], environment: dict[str, str]) -> Process:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("DND_")}
        with (self.folder / f"{name}.log").open("ab") as output:
            return subprocess.Popen(
                command, env=inherited | environment, stdout=output, stderr=subprocess.STDOUT
            )

    def _wait_for(self, name: str, process: Process) -> None:
        def ready() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"{name} ended: {self.log(name)[-2000:]}")
            return self._ready_file(name).exists()

        wait_until(ready, f"{name} is ready")


@contextmanager
def start_stack(
    folder: Path, fakes: Fakes, database: str = "", broker_port: int = 0, **settings: object
) -> Iterator[CoordinatorStack]:
    """A broker and a coordinator on loopback; workers are started by the test.

    Its record is SQLite in `folder` unless there is the URL of another database; its broker
    listens at any free port unless one is given.

    All of them end with the block, also when a test fails or the tests are ended with SIGTERM.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stack = CoordinatorStack(folder, fakes, SETTINGS | settings, database, broker_port)
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated"))
    try:
        stack.start_broker()
        stack.start_coordinator()
        yield stack
    finally:
        stack.close()
        signal.signal(signal.SIGTERM, before)


def wait_until(look: Callable[[], T | None], what: str, timeout_s: float = START_S) -> T:
    """Returns what `look` gives as soon as it is true."""
    until = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < until, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.05)


def finish(client: Client, job_id: str, timeout_s: float = START_S) -> Job:
    """Waits for the end of a job."""

    def ended() -> Job | None:
        job = client.get_job(job_id)
        return job if job.state.ended else None

    return wait_until(ended, f"job {job_id} ends", timeout_s)


def records(client: Client, job_id: str) -> list[dict[str, Any]]:
    """Records of all units, without what may differ between runs: the job's id and the timings."""
    return [comparable(unit) for unit in client.labels(job_id)]


def comparable(unit: UnitResult) -> dict[str, Any]:
    """The record of a unit that has ended, without what may differ between runs."""
    assert unit.record is not None, f"unit {unit.unit} of {unit.layer} has not ended"
    return {key: value for key, value in unit.record.items() if key not in ("job", "timings")}


def _kill(process: Process | None) -> None:
    """Ends a process at once, a stopped one too."""
    if process is not None:
        process.kill()
        process.wait(30)
