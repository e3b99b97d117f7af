"""A coordinator and its worker that are watched: their traces, log lines and metrics are kept.

The stage services are the fakes, but as operators see real ones: a process with the servers' own
code around them. The collector of traces is a gRPC server of this process.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc
from coordinator_stack import SETTINGS, SOURCE, CoordinatorStack, Process
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from dnd.artifacts import ArtifactStore
from dnd.clients import SERVICE_NAMES
from dnd.stack.valkey import free_port
from dnd.testing import Fakes

SERVICES = """
import os, sys
from dnd.artifacts import ArtifactStore
from dnd.clients import SERVICE_NAMES
from dnd.errors import Internal
from dnd.serving import DynamicBatcher, StageService, run
from dnd.settings import ServerSettings
from dnd.testing import Fakes
from dnd.testing.fakes import _ADD

class Served:
    # The methods of a fake, each call as one item of a batch.
    def __init__(self, fake, metrics):
        self._fake = fake
        self._batcher = DynamicBatcher(
            lambda key, calls: [call() for call in calls],
            max_batch=4, max_queue=64, max_wait_ms=1, metrics=metrics,
        )

    def __getattr__(self, name):
        method = getattr(type(self._fake), name)
        method = getattr(method, "__wrapped__", method)  # a later version has more methods
        async def answer(request, context):
            if os.environ.get("FAIL_ONCE") == name:
                del os.environ["FAIL_ONCE"]
                raise KeyError("as a test has asked")
            (found,) = await self._batcher.submit("", [lambda: method(self._fake, request)])
            if isinstance(found, Exception):
                raise found
            return found
        return answer

def build(settings, metrics):
    fakes = Fakes(ArtifactStore(settings.artifacts))
    def add(server):
        for name in SERVICE_NAMES:
            _ADD[name](Served(getattr(fakes, name), metrics), server)
    async def close():
        pass
    return StageService("dnd.v1.CaptionerService", add, close)

sys.exit(run("fakes", ServerSettings, build))
"""


@dataclass(frozen=True)
class Span:
    """A span as the collector got it; ids are hexadecimal, `process` is the service's name."""

    process: str
    name: str
    trace: str
    id: str
    parent: str
    kind: int
    attributes: Mapping[str, Any]
    links: tuple[str, ...]
    failed: bool


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP collector that keeps all spans."""

    spans: list[Span] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        with self._lock:
            for resource in request.resource_spans:
                process = _plain(resource.resource.attributes)["service.name"]
                for scope in resource.scope_spans:
                    self.spans += [_read(process, one) for one in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


def _read(process: str, span: Any) -> Span:
    return Span(
        process=process,
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        kind=span.kind,
        attributes=_plain(span.attributes),
        links=tuple(link.trace_id.hex() for link in span.links),
        failed=span.status.code == 2,
    )


def _plain(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)


@contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    """A collector and its address."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield collector, f"http://127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


@dataclass
class _Served:
    """What a stack needs to know of stage services that are a process."""

    artifacts: ArtifactStore
    targets: dict[str, str]


@dataclass
class Watched(CoordinatorStack):
    """Processes that log JSON and send traces, and the process of the stage services.

    Attributes:
        services: Its process.
    """

    services: Process | None = None

    def start_services(self, source: Path) -> None:
        """Starts the stage services, whose modules are in `source`, and waits until they serve."""
        environment = {
            "PYTHONPATH": str(source),
            "DND_ARTIFACTS": str(self.fakes.artifacts.root),
            "DND_ENDPOINTS_FILE": str(self._ready_file("services")),
            "DND_LOG_FORMAT": "json",
            "DND_DRAIN_S": "1",
        }
        self.services = self._spawn("services", [sys.executable, "-c", SERVICES], environment)
        self._wait_for("services", self.services)
        address = json.loads(self._ready_file("services").read_text())["address"]
        self.fakes.targets.update(dict.fromkeys(SERVICE_NAMES, address))

    def metrics_ports(self) -> dict[str, int]:
        """Ports of the metrics pages: of the services, the coordinator, and the first worker."""
        found = {}
        for name in ("services", "coordinator"):
            url = json.loads(self._ready_file(name).read_text())["metrics"]
            found[name] = int(url.rpartition(":")[2].partition("/")[0])
        return found | {"worker": int(str(self.settings["worker_metrics_port"]))}

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The log lines of a process, all of which are JSON."""
        return [json.loads(line) for line in self.log(name).splitlines()]

    def stop_all(self) -> None:
        """Ends all processes but the broker as operators do: what is left to send is sent."""
        ending = [*self.workers.values(), self.coordinator, self.services]
        for process in ending:
            if process is not None:
                process.terminate()
        for process in ending:
            if process is not None:
                assert process.wait(30) == 0

    def close(self) -> None:
        if self.services is not None:
            self.services.kill()
            self.services.wait(30)
        super().close()


@contextmanager
def watched_stack(
    folder: Path,
    environment: Mapping[str, str],
    services_source: Path = SOURCE,
    **settings: object,
) -> Iterator[Watched]:
    """A broker, stage services, a coordinator and one worker, all with this environment."""
    served = _Served(ArtifactStore(folder / "artifacts"), {})
    port = free_port()
    stack = Watched(
        folder,
        cast("Fakes", served),
        SETTINGS | {"log_format": "json", "worker_metrics_port": port} | settings,
    )
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        stack.start_broker()
        stack.start_services(services_source)
        stack.start_coordinator()
        stack.start_workers("worker", metrics_port=port)
        yield stack
    finally:
        os.environ.clear()
        os.environ.update(before)
        stack.close()
