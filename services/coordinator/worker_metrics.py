"""Prometheus metrics of a worker process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from dnd.errors import BadSetting, DndError, kind_of
from dnd.serving.metrics import describe_process

# Tasks are filled up to a predicted 20 s and capped at 60 s, calls of a service end after 90 s.
_TASK_SECONDS = (0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 90, 180)


class WorkerMetrics:
    """What a worker has done, by stage."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._tasks = Counter("dnd_tasks", "Tasks that ended", ["stage"], registry=self.registry)
        self._items = Counter(
            "dnd_task_items",
            "Items whose result or failure was written",
            ["stage"],
            registry=self.registry,
        )
        self._failures = Counter(
            "dnd_failed_items",
            "Failures of items, by the class of their error; most are tried again",
            ["stage", "kind", "error"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "dnd_task_seconds",
            "Time of a task",
            ["stage"],
            buckets=_TASK_SECONDS,
            registry=self.registry,
        )
        self._running = Gauge(
            "dnd_running_tasks", "Tasks under way", ["stage"], registry=self.registry
        )
        describe_process(self.registry)

    def measure(self, stage: str, task: Callable[[], int]) -> None:
        """Runs a task, which answers how many items it wrote."""
        started = time.perf_counter()
        with self._running.labels(stage).track_inprogress():
            num_written = task()
        self._tasks.labels(stage).inc()
        self._items.labels(stage).inc(num_written)
        self._seconds.labels(stage).observe(time.perf_counter() - started)

    def count_failures(self, stage: str, errors: Iterable[DndError]) -> None:
        """Counts errors of items; of a call that failed as a whole, one for each item."""
        for error in errors:
            self._failures.labels(stage, kind_of(error).value, type(error).__name__).inc()

    def serve(self, host: str, port: int) -> None:
        """Serves the metrics over HTTP in a daemon thread.

        Raises:
            BadSetting: The port is in use.
        """
        try:
            start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            raise BadSetting(f"DND_METRICS_PORT = {port}: {error.strerror}.") from None
