"""More replicas of the synthesizer, whose device time is emulated: what they add, how soon.

    python -m benchmarks.replicas [--batch-s S] [--plot FILE.svg]

The synthesizer is a fake that holds its one device for a set time for each batch of drawings and
draws nothing; nothing of what is drawn is shared. Broker, record (SQLite), coordinator and worker
are real processes, each replica is a process. First 1, 2, 4 and 8 replicas draw the same amount
each, and the simulator of `dnd estimate --simulate` says from the first run how long the
others take; then replicas come and go during one job. Prints tables.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.scaling.stack import Stack, start_stack
from dnd.client import Client
from dnd.jobs import Job, JobSpec, LayerUnits, StageLoad
from dnd.simulation import simulate
from dnd.stages import DRAWINGS_PER_CALL
from dnd.testing.target import activity_of
from dnd.types import UnitActivity

REPLICAS = (1, 2, 4, 8)
THREADS = 2 * REPLICAS[-1]
UNITS_EACH = 64
DRAWINGS = 10
OVERRIDES = {
    "exemplars.num_exemplars": "3",
    "propose.max_candidates": "2",
    "synthesis.num_images": str(DRAWINGS),
    "index.keep_matrix": "false",
    "score.probe_correlation": "false",
    "calibration.enabled": "false",
}
OTHER_STAGES = "index,dissect,exemplars,caption,summarize,score,calibrate"
SETS_PER_CALL = DRAWINGS_PER_CALL // DRAWINGS
BATCHES_PER_CALL = DRAWINGS_PER_CALL // 8
SAMPLE_S = 0.25
SETTLE_S = 6.0
"""Workers read the addresses of replicas again every 5 s."""
PHASE_S = 10.0
GIVE_UP_S = 60.0
CONSOLE = Console(width=100)


class Replicas:
    """Replicas of the synthesizer, found by the workers through a file of addresses."""

    def __init__(self, stack: Stack, addresses: Path, batch_s: float) -> None:
        self._stack = stack
        self._file = addresses
        self._batch_s = batch_s
        self._addresses: dict[str, str] = {}
        self._num_started = 0

    def scale(self, num: int, *, kill: bool = False) -> None:
        """Starts or ends replicas until there are `num`; the last ones go first."""
        while len(self._addresses) < num:
            name = f"synthesizer-{self._num_started}"
            self._num_started += 1
            targets = self._stack.start_fakes(name, "--batch-s", self._batch_s)
            self._addresses[name] = targets["synthesizer"]
        gone = list(self._addresses)[num:]
        if not kill:
            self._publish(list(self._addresses)[:num])
        for name in gone:
            self._stack.stop(name, kill=kill)
            del self._addresses[name]
        self._publish(list(self._addresses))

    def _publish(self, names: list[str]) -> None:
        draft = self._file.with_suffix(".draft")
        draft.write_text(json.dumps({"addresses": [self._addresses[name] for name in names]}))
        draft.replace(self._file)


@dataclass(frozen=True)
class Run:
    """A job on some replicas.

    Attributes:
        seconds: From its creation to its end.
        predicted_s: What the simulator said.
        rate: Image sets a second while they were drawn.
    """

    num: int
    num_sets: int
    seconds: float
    predicted_s: float
    rate: float


def spec(first: int, num_units: int) -> JobSpec:
    """Live units, after the first ones: no job had them before, so nothing is drawn already."""
    live = (unit for unit in itertools.count() if activity_of(unit) is UnitActivity.LIVE)
    units = tuple(islice(live, first, first + num_units))
    return JobSpec("wide", (LayerUnits("encoder", units),), "shapes", "starter", OVERRIDES)


def num_drawn(job: Job) -> int:
    """Image sets that a job has."""
    return next(one.num_done for one in job.stages if one.stage == "synthesize")


def draw(client: Client, job: Job) -> tuple[Job, list[tuple[float, int]]]:
    """Follows a job to its end; (seconds, image sets) as they became more."""
    seen = [(time.monotonic(), num_drawn(job))]
    while not job.state.ended:
        time.sleep(SAMPLE_S)
        job = client.get_job(job.id)
        if num_drawn(job) > seen[-1][1]:
            seen.append((time.monotonic(), num_drawn(job)))
    return job, seen


def rate_of(seen: list[tuple[float, int]]) -> float:
    """Image sets a second from the first that was there to the last."""
    (first_at, first), (last_at, last) = seen[1], seen[-1]
    return (last - first) / (last_at - first_at)


def compare(client: Client, replicas: Replicas) -> list[Run]:
    """Jobs on 1, 2, 4 and 8 replicas."""
    runs: list[Run] = []
    measured: dict[str, StageLoad] = {}
    first = 0
    for num in REPLICAS:
        replicas.scale(num)
        time.sleep(SETTLE_S)
        asked = spec(first, UNITS_EACH * num)
        first += UNITS_EACH * num
        started = time.monotonic()
        job, seen = draw(client, client.create_job(asked))
        seconds = time.monotonic() - started
        loads = client.estimate(asked).stages
        measured = measured or {load.stage: load for load in loads}
        loads = tuple(replace(measured[load.stage], num_items=load.num_items) for load in loads)
        predicted_s = simulate(loads, job.num_units, {"synthesize": num}).duration_s
        runs.append(Run(num, num_drawn(job), seconds, predicted_s, rate_of(seen)))
    return runs


def print_runs(runs: Sequence[Run], ideal: float) -> None:
    """Prints how fast 1, 2, 4 and 8 replicas are.

    Args:
        ideal: Image sets a second of a device that never waits.
    """
    table = Table(
        "replicas", "image sets", "sets a second", "efficiency", "of the device",
        "seconds", "simulated", "off by",
    )  # fmt: skip
    for run in runs:
        table.add_row(
            str(run.num),
            str(run.num_sets),
            f"{run.rate:.2f}",
            f"{run.rate / (run.num * runs[0].rate):.2f}",
            f"{run.rate / (run.num * ideal):.2f}",
            f"{run.seconds:.1f}",
            f"{run.predicted_s:.1f}",
            f"{run.predicted_s / run.seconds - 1:+.0%}",
        )
    CONSOLE.print(table)


def plot(runs: Sequence[Run], path: Path) -> None:
    """Image sets a second over replicas, measured and ideal, as SVG."""
    most = runs[-1].num * runs[0].rate

    def place(num: float, rate: float) -> str:
        return f"{60 + 380 * num / runs[-1].num:.0f},{260 - 220 * rate / most:.0f}"

    dots = "".join(
        '<circle cx="{}" cy="{}" r="4"/>'.format(*place(run.num, run.rate).split(","))
        for run in runs
    )
    labels = "".join(
        f'<text x="{place(run.num, 0).split(",")[0]}" y="280" text-anchor="middle">{run.num}</text>'
        for run in runs
    )
    path.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="480" height="320" font-family="sans-serif" '
        'font-size="12"><rect width="480" height="320" fill="white"/>'
        '<path d="M60,30 V260 H450" fill="none" stroke="black"/>'
        f'<polyline points="{place(0, 0)} {place(runs[-1].num, most)}" fill="none" stroke="gray" '
        'stroke-dasharray="4"/>'
        f'<polyline points="{" ".join(place(run.num, run.rate) for run in runs)}" fill="none" '
        f'stroke="steelblue" stroke-width="2"/><g fill="steelblue">{dots}</g>{labels}'
        '<text x="255" y="305" text-anchor="middle">replicas of the synthesizer (emulated devices)'
        f'</text><text x="20" y="20">sets a second; dashed: one replica, times their number; '
        f"{runs[-1].rate:.1f} at {runs[-1].num}</text></svg>\n"
    )


def come_and_go(client: Client, replicas: Replicas, first: int) -> Job:
    """Prints the rate of one job while replicas are added, ended and killed; the job in the end."""
    table = Table("during one job", "replicas", "sets a second", "seconds until used")
    replicas.scale(1)
    time.sleep(SETTLE_S)
    job = client.create_job(spec(first, UNITS_EACH * 5))
    while not num_drawn(client.get_job(job.id)):
        time.sleep(SAMPLE_S)
    single = watch(client, job.id, PHASE_S)
    table.add_row("at first", "1", f"{single:.2f}", "")
    replicas.scale(4)
    changed = time.monotonic()
    while watch(client, job.id, 4 * SAMPLE_S) < 2 * single:
        if time.monotonic() - changed > GIVE_UP_S:
            break
    used_s = time.monotonic() - changed
    rate = watch(client, job.id, PHASE_S)
    table.add_row("three added", "4", f"{rate:.2f}", f"{used_s:.1f}")
    replicas.scale(2)
    table.add_row("two ended with SIGTERM", "2", f"{watch(client, job.id, PHASE_S):.2f}", "")
    replicas.scale(1, kill=True)
    table.add_row("one killed", "1", f"{watch(client, job.id, PHASE_S):.2f}", "")
    replicas.scale(4)
    job, _ = draw(client, client.get_job(job.id))
    CONSOLE.print(table)
    return job


def watch(client: Client, job_id: str, seconds: float) -> float:
    """Image sets a second over that time."""
    started, before = time.monotonic(), num_drawn(client.get_job(job_id))
    time.sleep(seconds)
    return (num_drawn(client.get_job(job_id)) - before) / (time.monotonic() - started)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replicas")
    parser.add_argument("--batch-s", type=float, default=0.25, help="device time of 8 drawings")
    parser.add_argument("--plot", type=Path, help="write a plot, as SVG")
    asked = parser.parse_args()
    batch_s = asked.batch_s
    ideal = SETS_PER_CALL / (batch_s * BATCHES_PER_CALL)
    with tempfile.TemporaryDirectory(prefix="dnd-replicas-") as folder:
        addresses = Path(folder) / "synthesizers.json"
        with start_stack(Path(folder), "sqlite", "--unlike") as stack:
            replicas = Replicas(stack, addresses, batch_s)
            replicas.scale(1)
            targets = {"synthesizer": f"file:{addresses}"}
            stack.start_worker("worker", stage=OTHER_STAGES, threads=2, **targets)
            stack.start_worker("drawing", stage="synthesize", threads=THREADS, **targets)
            with stack.client() as client:
                CONSOLE.print(f"{batch_s} s of device time for 8 drawings, {DRAWINGS} for each set")
                runs = compare(client, replicas)
                print_runs(runs, ideal)
                if asked.plot:
                    plot(runs, asked.plot)
                job = come_and_go(client, replicas, UNITS_EACH * sum(REPLICAS))
        CONSOLE.print(f"that job: {job.state.value}, {job.num_failed} of {job.num_units} failed")


if __name__ == "__main__":
    main()
