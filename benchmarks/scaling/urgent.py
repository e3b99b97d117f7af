"""Interactive jobs beside a job of many units: what they take, and what they have to wait for."""

from __future__ import annotations

import statistics
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from benchmarks.scaling.stack import Stack
from dnd.jobs import STAGES, JobSpec

_LOOK_S = 0.05
_METRIC = "dnd_task_seconds"


@dataclass
class Urgent:
    """What interactive jobs took.

    Attributes:
        spec: Each of them.
        seconds: From creation to end, by when it was.
        num_tasks: Tasks of all jobs that ended, by stage.
        task_s: Their seconds in all, by stage.
    """

    spec: JobSpec
    seconds: dict[str, list[float]] = field(default_factory=dict)
    num_tasks: Counter[str] = field(default_factory=Counter)
    task_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def run(self, stack: Stack, when: str, number: int) -> None:
        """Runs one, of a tenant that shares nothing with others."""
        with stack.client(f"{when.replace(' ', '-')}-{number}") as client:
            started = time.monotonic()
            job = client.create_job(self.spec)
            while not job.state.ended:
                time.sleep(_LOOK_S)
                job = client.get_job(job.id)
            self.seconds.setdefault(when, []).append(time.monotonic() - started)

    def read_tasks(self, ports: Sequence[int]) -> None:
        """Adds the tasks that the workers whose metrics are at those ports have ended."""
        for port in ports:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
                families = text_string_to_metric_families(page.read().decode())
            for sample in (one for family in families for one in family.samples):
                if sample.name == f"{_METRIC}_count":
                    self.num_tasks[sample.labels["stage"]] += int(sample.value)
                elif sample.name == f"{_METRIC}_sum":
                    self.task_s[sample.labels["stage"]] += sample.value

    def print(self, console: Console) -> None:
        """Two tables."""
        table = Table("an interactive job of 10 units", "times", "median, s", "slowest, s")
        for when, seconds in self.seconds.items():
            median, most = statistics.median(seconds), max(seconds)
            table.add_row(when, str(len(seconds)), f"{median:.2f}", f"{most:.2f}")
        console.print(table)
        table = Table("a task of stage", "tasks", "mean, s")
        for stage in (one for one in STAGES if self.num_tasks[one]):
            mean_s = self.task_s[stage] / self.num_tasks[stage]
            table.add_row(stage, str(self.num_tasks[stage]), f"{mean_s:.3f}")
        console.print(table)
