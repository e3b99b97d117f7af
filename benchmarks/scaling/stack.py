"""A coordinator as an operator runs it: broker, database, coordinator, workers, idle fakes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import redis

from dnd.client import Client
from dnd.stack.valkey import answers, free_port, valkey_program, valkey_url
from dnd.testing.postgres import start_postgres

_START_S = 180.0
_STOP_S = 30.0


@dataclass
class Stack:
    """Processes of one coordinator, by name.

    Attributes:
        settings: Settings of the coordinator and of its workers, without their DND_.
    """

    folder: Path
    database: str
    settings: dict[str, object] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)

    def start(self, *fakes: object) -> None:
        """Starts the broker, the fakes (with options of `serve_fakes`) and the coordinator."""
        port = free_port()
        program = valkey_program(self.folder / "valkey", port, {})
        self.spawn("valkey", program.command)
        _wait(lambda: answers(port), "the broker answers")
        self.redis = redis.Redis.from_url(valkey_url(port))
        self.settings = (
            self.start_fakes("fakes", *fakes)
            | self.settings
            | {
                "database": self.database,
                "redis": valkey_url(port),
                "artifacts": self.artifacts,
            }
        )
        self.start_service("coordinator", "dnd_services.coordinator")

    def start_fakes(self, name: str, *options: object) -> dict[str, str]:
        """Starts a process of fakes; where its services listen."""
        targets = self.folder / f"{name}.json"
        module = "benchmarks.scaling.serve_fakes"
        arguments = [str(one) for one in (self.artifacts, targets, *options)]
        self.spawn(name, [sys.executable, "-m", module, *arguments])
        _wait(targets.exists, f"{name} serve")
        return dict(json.loads(targets.read_text()))

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    def start_worker(self, name: str, **settings: object) -> None:
        """Starts a worker process and waits until it works."""
        self.start_service(name, "dnd_services.coordinator.worker", **settings)

    def start_service(self, name: str, module: str, **settings: object) -> None:
        """Starts a process with the stack's settings and waits until it is ready."""
        ready = self.folder / f"{name}.json"
        ready.unlink(missing_ok=True)
        variables = self.settings | settings | {"endpoints_file": ready}
        environment = {f"DND_{key.upper()}": str(value) for key, value in variables.items()}
        self.spawn(name, [sys.executable, "-m", module], environment)

        def is_ready() -> bool:
            if self.processes[name].poll() is not None:
                raise SystemExit(f"{name} ended: {self.log(name)[-2000:]}")
            return ready.exists()

        _wait(is_ready, f"{name} is ready")

    def client(self, tenant: str = "default") -> Client:
        return Client(self.address(), tenant=tenant, deadline_s=60.0)

    def address(self) -> str:
        """Where the coordinator listens."""
        return str(json.loads((self.folder / "coordinator.json").read_text())["address"])

    def redis_bytes(self) -> int:
        return int(self.redis.info("memory")["used_memory"])  # type: ignore[index,call-overload]

    def rss(self, name: str) -> int:
        """Resident memory of a process, bytes."""
        return int(psutil.Process(self.processes[name].pid).memory_info().rss)

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time of each process so far; of those that others started too."""
        pids = {name: process.pid for name, process in self.processes.items()} | self.others
        return {name: _cpu_of(pid) for name, pid in pids.items()}

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def spawn(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("DND_")}
        with (self.folder / f"{name}.log").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                command,
                env=inherited | dict(environment or {}),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def stop(self, name: str, *, kill: bool = False) -> None:
        """Ends a process: with SIGTERM, or at once."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_S)

    def close(self) -> None:
        for name in reversed(list(self.processes)):
            self.stop(name, kill=name != "coordinator")


@contextmanager
def start_stack(folder: Path, database: str, *fakes: object, **settings: object) -> Iterator[Stack]:
    """A stack without workers, until the block ends.

    Args:
        database: "sqlite" or "postgresql".
        fakes: Options of `serve_fakes`.
        settings: Settings of the coordinator and of its workers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left running
    with ExitStack() as closing:
        url, others = f"sqlite:///{folder}/record.db", {}
        if database == "postgresql":
            server = closing.enter_context(start_postgres())
            url, others = server.url, {"postgresql": server.pid}
        stack = Stack(folder, url, dict(settings), others=others)
        closing.callback(stack.close)
        stack.start(*fakes)
        yield stack


def _cpu_of(pid: int) -> float:
    """CPU seconds of a process and of those it has started, running and ended ones."""
    process = psutil.Process(pid)
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _wait(look: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + _START_S
    while not look():
        if time.monotonic() > until:
            raise SystemExit(f"not within {_START_S:.0f} s: {what}")
        time.sleep(0.05)
