"""A job of many units through the real coordinator: what it carries, and what it takes.

    python -m benchmarks.scale [UNITS] [--database sqlite|postgresql]

The stage services are fakes that do next to nothing (`dnd.testing.idle`); broker, database,
coordinator and workers are real processes. While the job runs, a caller makes, lists, counts and
cancels jobs of the same size, others have interactive jobs of ten units, and memory is watched.
Prints tables.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.scaling.stack import Stack, start_stack
from benchmarks.scaling.urgent import Urgent
from dnd.client import Client
from dnd.errors import Transient
from dnd.jobs import Job, JobSpec, LayerUnits, UnitState
from dnd.stack.valkey import free_port
from dnd.types import Priority

WIDE = 1_000_000
STAGES = ("exemplars", "caption", "summarize", "score")
"""What every unit goes through; drawings are shared, so that they are not counted."""
OVERRIDES = {
    "exemplars.num_exemplars": "3",
    "propose.max_candidates": "2",
    "synthesis.num_images": "2",
    "synthesis.min_images": "1",
    "index.keep_matrix": "false",
    "score.probe_correlation": "false",
    "calibration.enabled": "false",
}
SAMPLE_S = 1.0
ASK_S = 5.0
CANCEL_AFTER_S = 20.0
URGENT_EVERY_S = 10.0
NUM_URGENT_BEFORE = 5
RSS_AT = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
CONSOLE = Console(width=100)


@dataclass
class Watched:
    """What was seen while the job ran.

    Attributes:
        progress: (seconds, unit-stages that have ended), once a second.
        redis_bytes: The most memory of the broker.
        rss: (seconds, bytes) of each process of ours.
        latencies: Seconds of each call, by what was asked.
        urgent: What ten units took that somebody waits for.
    """

    progress: list[tuple[float, int]] = field(default_factory=list)
    redis_bytes: int = 0
    rss: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    latencies: dict[str, list[float]] = field(default_factory=dict)
    urgent: Urgent = field(
        default_factory=lambda: Urgent(replace(spec(10), priority=Priority.INTERACTIVE))
    )


def spec(num_units: int) -> JobSpec:
    """The first units of a layer of a million."""
    units = () if num_units == WIDE else tuple(range(num_units))
    return JobSpec("wide", (LayerUnits("encoder", units),), "shapes", "starter", OVERRIDES)


def unit_stages(job: Job) -> int:
    """Stages of units that have ended."""
    return sum(one.num_done for one in job.stages if one.stage in STAGES)


def run(stack: Stack, num_units: int, timeout_s: float, watched: Watched) -> tuple[Job, float]:
    """Runs a job to its end, and watches it; the job and its seconds."""
    with stack.client() as client:
        started = time.monotonic()
        with timed(watched, "create the job"):
            job = client.create_job(spec(num_units))
        with (
            asking(stack, job.id, num_units, watched),
            repeating(URGENT_EVERY_S, lambda n: watched.urgent.run(stack, "while it runs", n)),
        ):
            while not job.state.ended:
                time.sleep(SAMPLE_S)
                job = client.get_job(job.id)
                now = time.monotonic() - started
                watched.progress.append((now, unit_stages(job)))
                watched.redis_bytes = max(watched.redis_bytes, stack.redis_bytes())
                for name in stack.processes:
                    watched.rss.setdefault(name, []).append((now, stack.rss(name)))
                if now > timeout_s:
                    CONSOLE.print(f"[bold]Given up after {now:.0f} s.[/bold]")
                    break
        return job, watched.progress[-1][0]


@contextmanager
def asking(stack: Stack, job_id: str, num_units: int, watched: Watched) -> Iterator[None]:
    """A caller of its own asks all that callers ask, every few seconds, until the block ends."""
    with (
        stack.client() as client,
        repeating(ASK_S, lambda number: ask_all(client, job_id, num_units, watched)),
    ):
        yield


@contextmanager
def repeating(wait_s: float, function: Callable[[int], None]) -> Iterator[None]:
    """A thread that calls `function` with 0, 1, … until the block ends, each time after a wait."""
    stop = threading.Event()

    def repeat() -> None:
        for number in itertools.count():
            if stop.wait(wait_s):
                return
            try:
                function(number)
            except Transient as error:
                CONSOLE.print(f"[bold]no answer:[/bold] {error.message}")

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def ask_all(client: Client, job_id: str, num_units: int, watched: Watched) -> None:
    """One of each call."""
    with timed(watched, "create another job of that size"):
        other = client.create_job(spec(num_units))
    with timed(watched, "cancel that job"):
        client.cancel_job(other.id)
    with timed(watched, "count by state"):
        client.get_job(job_id)
    for state in (None, UnitState.LABELED, UnitState.FAILED):
        with timed(watched, f"page of 1000 units, {state.value if state else 'any state'}"):
            first(client.labels(job_id, state=state, with_records=False, page_size=1000), 1000)
    with timed(watched, "page of 100 records"):
        first(client.labels(job_id), 100)
    with timed(watched, "page of 100 jobs"):
        first(client.list_jobs(), 100)


def first(items: Iterator[object], num: int) -> None:
    """Reads the first items of a list that comes in pages."""
    for _ in itertools.islice(items, num):
        pass


@contextmanager
def timed(watched: Watched, what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    watched.latencies.setdefault(what, []).append(time.monotonic() - started)


def print_failures(stack: Stack, job: Job) -> None:
    """Why units failed, if any did: no-op stages give no reason to."""
    with stack.client() as client:
        failed = client.labels(job.id, state=UnitState.FAILED, with_records=False)
        for unit in itertools.islice(failed, 3):
            CONSOLE.print(f"unit {unit.unit} failed at stage {unit.stage}: {unit.error}")


def cancel_running(stack: Stack, num_units: int, watched: Watched) -> None:
    """Cancels a job of that size that has been running for a while."""
    with stack.client() as client:
        job = client.create_job(spec(num_units))
        until = time.monotonic() + CANCEL_AFTER_S
        while time.monotonic() < until and not unit_stages(client.get_job(job.id)):
            time.sleep(SAMPLE_S)
        with timed(watched, "cancel a job that runs"):
            client.cancel_job(job.id)


def report(job: Job, watched: Watched, seconds: float, cpu: dict[str, float]) -> None:
    """Prints what was measured."""
    num = unit_stages(job)
    states = ", ".join(f"{num} {state.value}" for state, num in job.units.items())
    CONSOLE.print(f"job of {job.num_units} units: {job.state.value} in {seconds:.0f} s ({states})")
    CONSOLE.print(
        f"{num} unit-stages: {num / seconds:.0f} a second from creation to end, "
        f"{sustained(watched.progress):.0f} a second between a tenth and nine tenths of them"
    )
    CONSOLE.print(f"broker: {watched.redis_bytes / 2**20:.1f} MiB at most")
    print_cpu(cpu, num)
    print_rss(watched)
    print_latencies(watched)
    watched.urgent.print(CONSOLE)


def sustained(progress: Sequence[tuple[float, int]]) -> float:
    """Unit-stages a second while the middle eight tenths of them ended."""
    total = progress[-1][1]
    middle = [(at, num) for at, num in progress if 0.1 * total <= num <= 0.9 * total]
    if len(middle) < 2:
        return 0.0
    (first_at, first_num), (last_at, last_num) = middle[0], middle[-1]
    return (last_num - first_num) / (last_at - first_at)


def print_cpu(cpu: dict[str, float], num: int) -> None:
    table = Table("process", "CPU s", "CPU ms per unit-stage")
    for name, cpu_s in (*cpu.items(), ("all", sum(cpu.values()))):
        table.add_row(name, f"{cpu_s:.1f}", f"{1000 * cpu_s / max(num, 1):.3f}")
    CONSOLE.print(table)


def print_rss(watched: Watched) -> None:
    """Memory of each process at fifths of the job's time, MiB."""
    table = Table("resident memory, MiB", *(f"{share:.0%}" for share in RSS_AT), "slope after 20%")
    for name, samples in watched.rss.items():
        at = [samples[round(share * (len(samples) - 1))][1] / 2**20 for share in RSS_AT]
        table.add_row(name, *(f"{mib:.0f}" for mib in at), f"{100 * (at[-1] / at[1] - 1):+.0f} %")
    CONSOLE.print(table)


def print_latencies(watched: Watched) -> None:
    table = Table("a call while the job runs", "times", "median, s", "slowest, s")
    for what, seconds in watched.latencies.items():
        median, most = statistics.median(seconds), max(seconds)
        table.add_row(what, str(len(seconds)), f"{median:.3f}", f"{most:.3f}")
    CONSOLE.print(table)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("units", nargs="?", type=int, default=20_000)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    parser.add_argument("--threads", type=int, default=2, help="threads of each")
    parser.add_argument("--timeout-s", type=float, default=7200.0)
    asked = parser.parse_args(argv)
    if not 1 <= asked.units <= WIDE:
        parser.error(f"{asked.units} units: expected 1 to {WIDE}")
    watched = Watched()
    with (
        tempfile.TemporaryDirectory(prefix="dnd-scale-") as folder,
        start_stack(Path(folder), asked.database) as stack,
    ):
        ports = [free_port() for _ in range(asked.workers)]
        for number, port in enumerate(ports):
            name = f"worker-{number}"
            stack.start_worker(name, stage="all", threads=asked.threads, metrics_port=port)
        for number in range(NUM_URGENT_BEFORE):
            watched.urgent.run(stack, "before the job of many units", number)
        before = stack.cpu_seconds()
        job, seconds = run(stack, asked.units, asked.timeout_s, watched)
        cpu = {name: cpu_s - before[name] for name, cpu_s in stack.cpu_seconds().items()}
        watched.urgent.read_tasks(ports)
        print_failures(stack, job)
        cancel_running(stack, asked.units, watched)
        report(job, watched, seconds, cpu)


if __name__ == "__main__":
    main()
