"""Reads of the API while a job runs: GetUnit beside an RPC that does nothing.

    python -m benchmarks.api [SECONDS] [--database sqlite|postgresql] [--connections N] [--rate R]

The stage services are fakes that do next to nothing (`dnd.testing.idle`); broker, database,
coordinator and one worker are real processes, and so is the job that runs meanwhile. Calls begin at
times that are drawn beforehand, whatever came of those before, and a call that begins late has
waited since then. Prints a table.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from rich.table import Table

from benchmarks.scaling.stack import start_stack
from dnd.client import Client
from dnd.jobs import Job, JobSpec, LayerUnits
from dnd.v1 import coordinator_pb2 as pb2
from dnd.v1 import coordinator_pb2_grpc

OVERRIDES = {
    "exemplars.num_exemplars": "10",
    "synthesis.num_images": "10",
    "index.keep_matrix": "false",
    "score.probe_correlation": "false",
    "calibration.enabled": "false",
}
NUM_READ = 500
"""Units of the job that is read; it has ended."""
NUM_RUNNING = 1_000_000
"""Units of the job that runs meanwhile."""
EMPTY = "empty RPC"
SHARES = {"GetUnit": 0.7, "GetJob": 0.2, "ListLabels": 0.1}
"""What is read, as shares of the rate; as many empty RPCs are called besides as units are read."""
CONSOLE = Console(width=100)


@dataclass
class Measured:
    """What came of the calls.

    Attributes:
        seconds: Of each call, from when it was to begin, by what was called.
        errors: Calls that failed, by what they said.
    """

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: Counter[str] = field(default_factory=Counter)


class Caller:
    """One connection."""

    def __init__(self, address: str, job: Job) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]  # else all share one connection
        self._channel = grpc.aio.insecure_channel(address, options=options)
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(self._channel)
        health = health_pb2_grpc.HealthStub(self._channel)
        layer = job.spec.layers[0].layer
        self.calls: dict[str, Callable[[], Awaitable[object]]] = {
            EMPTY: lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=30),
            "GetJob": lambda: stub.GetJob(pb2.GetJobRequest(job_id=job.id), timeout=30),
            "GetUnit": lambda: stub.GetUnit(
                pb2.GetUnitRequest(job_id=job.id, layer=layer, unit=random.randrange(NUM_READ)),
                timeout=30,
            ),
            "ListLabels": lambda: stub.ListLabels(
                pb2.ListLabelsRequest(job_id=job.id, page_size=100), timeout=30
            ),
        }

    async def open(self) -> None:
        """Connects."""
        await self.calls[EMPTY]()

    async def close(self) -> None:
        await self._channel.close()


async def measure(
    address: str, job: Job, seconds: float, num_connections: int, rate: float
) -> Measured:
    """Calls for some seconds over many connections."""
    measured = Measured()
    callers = [Caller(address, job) for _ in range(num_connections)]
    await asyncio.gather(*(caller.open() for caller in callers))
    rates = {name: share * rate for name, share in SHARES.items()}
    rates[EMPTY] = rates["GetUnit"]
    plan = sorted(
        (at, name)
        for name, each in rates.items()
        for at in itertools.takewhile(lambda at: at < seconds, _arrivals(each))
    )
    begin = time.perf_counter()

    async def call(caller: Caller, name: str, at: float) -> None:
        try:
            await caller.calls[name]()
        except grpc.aio.AioRpcError as error:
            measured.errors[f"{name}: {error.code().name} {error.details()}"] += 1
        else:
            measured.seconds[name].append(time.perf_counter() - begin - at)

    async with asyncio.TaskGroup() as tasks:
        for number, (at, name) in enumerate(plan):
            await asyncio.sleep(max(begin + at - time.perf_counter(), 0))
            tasks.create_task(call(callers[number % num_connections], name, at))
    await asyncio.gather(*(caller.close() for caller in callers))
    return measured


def _arrivals(rate: float) -> itertools.accumulate[float]:
    """Times of calls that come independently of each other, `rate` a second."""
    draws = random.Random(rate)
    return itertools.accumulate(draws.expovariate(rate) for _ in itertools.count())


def make_jobs(client: Client) -> tuple[Job, Job]:
    """A job that has ended, and one that runs."""
    *_, job = client.watch(client.create_job(_spec(NUM_READ)).id)
    assert job.num_failed == 0, "the fakes label every unit"
    running = client.create_job(_spec(NUM_RUNNING))
    while client.get_job(running.id).num_ended < 10:
        time.sleep(0.5)
    return job, running


def _spec(num_units: int) -> JobSpec:
    units = tuple(range(num_units)) if num_units < NUM_RUNNING else ()
    return JobSpec("wide", (LayerUnits("encoder", units),), "shapes", "starter", OVERRIDES)


def show(measured: Measured, seconds: float, num_labelled: int) -> None:
    """Prints the table."""
    table = Table("Call", "calls", "p50 ms", "p99 ms", "max ms", "p99 / empty")
    p99 = {name: statistics.quantiles(found, n=100)[98] for name, found in measured.seconds.items()}
    for name in (EMPTY, *SHARES):
        found = measured.seconds[name]
        table.add_row(
            name,
            f"{len(found):,}",
            f"{statistics.median(found) * 1000:.1f}",
            f"{p99[name] * 1000:.1f}",
            f"{max(found) * 1000:.1f}",
            f"{p99[name] / p99[EMPTY]:.1f}",
        )
    CONSOLE.print(table)
    units = num_labelled / seconds
    CONSOLE.print(f"The job that ran meanwhile labelled {units:.0f} units a second.")
    CONSOLE.print(f"Errors: {dict(measured.errors) or 'none'}.")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.api")
    parser.add_argument("seconds", type=float, nargs="?", default=60.0)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--rate", type=float, default=100.0, help="reads a second in total")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        start_stack(Path(folder), asked.database) as stack,
        stack.client() as client,
    ):
        stack.start_worker("worker", stage="all", threads=2)
        job, running = make_jobs(client)
        before = client.get_job(running.id).num_ended
        found = asyncio.run(
            measure(stack.address(), job, asked.seconds, asked.connections, asked.rate)
        )
        after = client.get_job(running.id)
        CONSOLE.print(
            f"{asked.connections} connections, {asked.rate:g} reads a second for "
            f"{asked.seconds:g} s, {asked.database}"
        )
        show(found, asked.seconds, after.num_ended - before)


if __name__ == "__main__":
    main()
