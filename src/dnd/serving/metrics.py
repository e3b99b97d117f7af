"""Prometheus metrics of one server process, and reading them back."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.parser import text_string_to_metric_families

from dnd.version import VERSION

BATCH_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256)


class Metrics:
    """The metrics that every server of the project has, under names that start with dnd_."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.rpcs = Counter("dnd_rpcs", "Answered RPCs", ["method", "code"], registry=self.registry)
        self.rpc_seconds = Histogram(
            "dnd_rpc_seconds", "Time to answer an RPC", ["method"], registry=self.registry
        )
        self.items = Counter("dnd_items", "Items computed in batches", registry=self.registry)
        self.cached = Counter(
            "dnd_cached_items", "Items answered from memory", registry=self.registry
        )
        self.batch_items = Histogram(
            "dnd_batch_items",
            "Items of a device batch, padding left out",
            buckets=BATCH_SIZES,
            registry=self.registry,
        )
        self.batch_seconds = Histogram(
            "dnd_batch_seconds", "Time of a device batch", registry=self.registry
        )
        self.device_seconds = Counter(
            "dnd_device_seconds",
            "Time that the device thread was at work, in vain too",
            registry=self.registry,
        )
        self.wait_seconds = Histogram(
            "dnd_wait_seconds", "Time from admission to the device", registry=self.registry
        )
        self.queued = Gauge(
            "dnd_queued_items", "Items admitted, unanswered", registry=self.registry
        )
        self.refused = Counter(
            "dnd_refused_items", "Items refused at admission", registry=self.registry
        )
        describe_process(self.registry)

    def count_rpc(self, method: str, code: str, seconds: float) -> None:
        """Counts an answered call of `method`, "/dnd.v1.ScorerService/EmbedTexts" for example."""
        self.rpcs.labels(method, code).inc()
        self.rpc_seconds.labels(method).observe(seconds)

    def serve(self, host: str, port: int) -> tuple[WSGIServer, Thread]:
        """Serves the metrics over HTTP in a daemon thread."""
        return start_http_server(port, addr=host, registry=self.registry)


def describe_process(registry: CollectorRegistry) -> None:
    """Adds what every process shows: its version, memory, CPU time and open files."""
    build = Gauge("dnd_build_info", "The version, as a label", ["version"], registry=registry)
    build.labels(VERSION).set(1)
    ProcessCollector(registry=registry)


@dataclass(frozen=True)
class ServerCounts:
    """What one server has done since it started."""

    num_rpcs: int
    num_items: int
    num_batches: int
    batch_s: float
    num_cached: int = 0

    @property
    def mean_batch(self) -> float:
        return self.num_items / self.num_batches if self.num_batches else 0.0


def read_counts(url: str, timeout_s: float = 5.0) -> ServerCounts:
    """Reads a server's metrics page. Health and reflection calls are no RPCs here."""
    with urllib.request.urlopen(url, timeout=timeout_s) as response:
        text = response.read().decode()
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return ServerCounts(
        num_rpcs=int(sums.get("dnd_rpcs_total", 0)),
        num_items=int(sums.get("dnd_batch_items_sum", 0)),
        num_batches=int(sums.get("dnd_batch_items_count", 0)),
        batch_s=sums.get("dnd_batch_seconds_sum", 0.0),
        num_cached=int(sums.get("dnd_cached_items_total", 0)),
    )
