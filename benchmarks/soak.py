"""Jobs without a pause while workers are restarted and calls fail: what gets lost, what grows.

    python -m benchmarks.soak [--minutes 30]

The stage services are fakes that do next to nothing (`dnd.testing.idle`); one call in a hundred
fails. Every minute one of two workers is killed, or ended with SIGTERM, and started again. Each job
is checked when it has ended, and deleted. Prints jobs, units, errors, and how the memory of the
processes grew that lived through it all: coordinator, broker, and a third worker. The fakes are
left out: they remember all that they were asked.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.scale import spec
from benchmarks.scaling.stack import Stack, start_stack
from dnd.client import Client
from dnd.errors import DndError, Transient
from dnd.jobs import Job, JobState, UnitState

UNITS = 2000
RESTARTED = ("worker-0", "worker-1")
STEADY = "steady worker"
WATCHED = ("coordinator", "valkey", STEADY)
RESTART_S = 60.0
SAMPLE_S = 5.0
WARM_UP = 0.2
STRETCHES = 10
ERROR_RATE = 0.01
CONSOLE = Console(width=100)


@dataclass
class Seen:
    """What happened.

    Attributes:
        states: Units of ended jobs by state.
        wrong: Jobs that did not end as they should have, and why.
        errors: Calls of the API that failed, by class.
        memory: (seconds, bytes) by process, of those that are never restarted.
    """

    num_jobs: int = 0
    states: Counter[UnitState] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    num_restarts: int = 0
    memory: dict[str, list[tuple[float, int]]] = field(default_factory=dict)


def soak(stack: Stack, seconds: float, seen: Seen) -> None:
    """Runs jobs, one after the other, and restarts workers until the time is over."""
    started = restarted = time.monotonic()
    turns = itertools.cycle(RESTARTED)
    with stack.client() as client:
        job: Job | None = None
        while job is not None or time.monotonic() - started < seconds:
            if job is None:
                job = create(client, seen)
            time.sleep(SAMPLE_S)
            now = time.monotonic()
            for name in WATCHED:
                seen.memory.setdefault(name, []).append((now - started, memory_of(stack, name)))
            if now - restarted > RESTART_S and now - started < seconds:
                restarted = now
                restart(stack, next(turns), seen)
            job = look(client, job, seen) if job else None


def create(client: Client, seen: Seen) -> Job | None:
    """Another job; None where a call of a stage service failed that the coordinator had to make."""
    try:
        return client.create_job(replace(spec(UNITS), seed=seen.num_jobs))
    except DndError as error:
        seen.errors[f"CreateJob: {type(error).__name__}"] += 1
        return None


def look(client: Client, job: Job, seen: Seen) -> Job | None:
    """How the job is; None once it has ended, been checked and deleted."""
    try:
        job = client.get_job(job.id)
        if not job.state.ended:
            return job
        client.delete_job(job.id)
    except DndError as error:
        seen.errors[type(error).__name__] += 1
        if not isinstance(error, Transient):
            raise
        return job
    seen.num_jobs += 1
    seen.states.update(job.units)
    num_ended = sum(num for state, num in job.units.items() if state is not UnitState.PENDING)
    if job.state is not JobState.COMPLETED or job.num_failed or num_ended != UNITS:
        seen.wrong.append(f"job {job.id}: {job.state.value}, {num_ended} ended, {job.error}")
    return None


def memory_of(stack: Stack, name: str) -> int:
    """Resident memory of a process, without the pages of files that it has mapped, bytes."""
    memory = psutil.Process(stack.processes[name].pid).memory_info()
    return int(memory.rss - memory.shared)


def restart(stack: Stack, name: str, seen: Seen) -> None:
    """Kills a worker, or every second time ends it as an operator would, and starts it again."""
    stack.stop(name, kill=bool(seen.num_restarts % 2))
    stack.start_worker(name, stage="all", threads=2)
    seen.num_restarts += 1


def slope(samples: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """MiB an hour and its standard error, by least squares, after the first fifth of the time.

    Samples that follow each other are alike, so the error is that of the means of ten stretches.
    """
    later = np.array(samples[round(WARM_UP * len(samples)) :], dtype=float)
    if len(later) < 2 * STRETCHES:
        return float("nan"), float("nan")
    means = np.array([part.mean(axis=0) for part in np.array_split(later, STRETCHES)])
    hours, sizes = means[:, 0] / 3600, means[:, 1] / 2**20
    (fitted, _), covariance = np.polyfit(hours, sizes, 1, cov=True)
    return float(fitted), float(np.sqrt(covariance[0, 0]))


def _ends(samples: Sequence[tuple[float, int]]) -> tuple[Sequence[tuple[float, int]], ...]:
    """The first and the last of ten stretches."""
    num = max(len(samples) // STRETCHES, 1)
    return samples[:num], samples[-num:]


def report(seen: Seen, minutes: float) -> None:
    states = ", ".join(f"{num} {state.value}" for state, num in seen.states.items())
    CONSOLE.print(
        f"{minutes:.1f} minutes: {seen.num_jobs} jobs of {UNITS} units ({states}); "
        f"{seen.num_restarts} workers restarted; {len(seen.wrong)} jobs wrong; "
        f"calls of the API that failed: {dict(seen.errors) or 'none'}"
    )
    for line in seen.wrong:
        CONSOLE.print(line)
    table = Table(
        "resident memory of its own",
        "samples",
        "first tenth, MiB",
        "last tenth, MiB",
        "MiB an hour",
    )
    for name, samples in seen.memory.items():
        first, last = (np.mean([size for _, size in some]) / 2**20 for some in _ends(samples))
        grown, error = slope(samples)
        table.add_row(
            name, str(len(samples)), f"{first:.0f}", f"{last:.0f}", f"{grown:+.1f} ± {error:.1f}"
        )
    CONSOLE.print(table)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    asked = parser.parse_args(argv)
    seen = Seen()
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="dnd-soak-") as folder,
        start_stack(
            Path(folder),
            asked.database,
            "--error-rate",
            ERROR_RATE,
            reuse_results=False,
            lease_s=10,
            renew_s=3,
            pause_s=0.5,
        ) as stack,
    ):
        for name in (*RESTARTED, STEADY):
            stack.start_worker(name, stage="all", threads=2)
        try:
            soak(stack, 60 * asked.minutes, seen)
        finally:
            report(seen, (time.monotonic() - started) / 60)


if __name__ == "__main__":
    main()
