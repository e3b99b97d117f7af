"""The starter profile end to end: units a minute, time of each stage, batches, what was shared.

    python -m benchmarks.pipeline [number of units]

Starts a stack of its own in a temporary home, labels units of EfficientNet-Lite0 twice (the second
job finds the drawings of the first), and prints what the store and the services counted.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dnd.client import Client
from dnd.jobs import Job, JobSpec, LayerUnits
from dnd.serving.metrics import ServerCounts
from dnd.stack import Home, inspect, load_config, running_server, start, stop

MODEL = "efficientnet_lite0"
LAYERS = ("_blocks.10._project_conv", "_conv_head", "_fc")
CONSOLE = Console(width=100)

Counts = dict[str, ServerCounts]


def run(client: Client, home: Home, num_units: int) -> tuple[Job, list[dict[str, Any]], float]:
    """Labels `num_units` units, spread over the layers; the job, its records, its seconds."""
    share = -(-num_units // len(LAYERS))
    layers = tuple(LayerUnits(layer, tuple(range(share))) for layer in LAYERS)
    started = time.monotonic()
    job = client.create_job(JobSpec(MODEL, layers, "openmoji", "starter"))
    for current in client.watch(job.id):
        job = current
    seconds = time.monotonic() - started
    records = [dict(u.record or {}) for u in client.labels(job.id, with_records=True)]
    return job, records, seconds


def read(home: Home) -> Counts:
    """What each service has counted so far."""
    return {m.name: m.counts for m in inspect(home) if m.counts}


def main() -> None:
    num_units = int(sys.argv[1]) if len(sys.argv) > 1 else 48
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        began = time.monotonic()
        start(home, load_config())
        started_s = time.monotonic() - began
        try:
            target = running_server(home)
            assert target
            with Client(target) as client:
                before = read(home)
                for name in ("first job", "the same again"):
                    job, records, seconds = run(client, home, num_units)
                    after = read(home)
                    report(name, job, records, seconds, before, after)
                    before = after
            CONSOLE.print(f"start of the stack, probe set drawn: {started_s:.0f} s")
        finally:
            stop(home)


def report(
    name: str,
    job: Job,
    records: list[dict[str, Any]],
    seconds: float,
    before: Counts,
    after: Counts,
) -> None:
    """Prints the tables of one job."""
    CONSOLE.print(
        f"\n[bold]{name}[/bold]: {job.num_ended} units in {seconds:.0f} s, "
        f"{60 * job.num_ended / seconds:.1f} units a minute, {job.num_failed} failed"
    )
    stages = Table("stage", "done", "s per item", "s per unit")
    for stage in job.stages:
        per_unit = stage.item_s * stage.num_done / max(job.num_ended, 1)
        stages.add_row(stage.stage, str(stage.num_done), f"{stage.item_s:.3f}", f"{per_unit:.2f}")
    CONSOLE.print(stages)

    services = Table("service", "RPCs", "items", "mean batch", "device s")
    for service, counts in after.items():
        old = before.get(service, ServerCounts(0, 0, 0, 0.0))
        items, batches = counts.num_items - old.num_items, counts.num_batches - old.num_batches
        services.add_row(
            service,
            str(counts.num_rpcs - old.num_rpcs),
            str(items),
            f"{items / batches:.1f}" if batches else "-",
            f"{counts.batch_s - old.batch_s:.1f}",
        )
    CONSOLE.print(services)

    asked = {
        "captions": sum(len(r["exemplars"]) for r in records),
        "drawings": sum(len(c["images"]) for r in records for c in r["candidates"]),
    }
    done = {
        "captions": _items(before, after, "captioner"),
        "drawings": _items(before, after, "synthesizer"),
    }
    # What is drawn for the percentiles is computed beside, and no candidate's.
    shared = Table("what", "in the results", "computed", "hit rate")
    for what, needed in asked.items():
        rate = max(0.0, 1 - done[what] / needed) if needed else 0.0
        shared.add_row(what, str(needed), str(done[what]), f"{rate:.0%}")
    CONSOLE.print(shared)


def _items(before: Counts, after: Counts, service: str) -> int:
    old = before.get(service)
    new = after.get(service)
    return (new.num_items if new else 0) - (old.num_items if old else 0)


if __name__ == "__main__":
    main()
