"""Serves the five fakes and a judge on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from dnd.artifacts import ArtifactStore
from dnd.clients import JUDGE, SERVICE_NAMES
from dnd.serving.server import CHANNEL_OPTIONS
from dnd.testing.models import FakeCaptioner, FakeSummarizer, FakeSynthesizer
from dnd.testing.scorer import FakeScorer
from dnd.testing.target import FakeActivations
from dnd.v1 import (
    activations_pb2_grpc,
    captioner_pb2_grpc,
    scorer_pb2_grpc,
    summarizer_pb2_grpc,
    synthesizer_pb2_grpc,
)

_ADD: dict[str, Callable[[Any, grpc.Server], None]] = {
    "activations": activations_pb2_grpc.add_ActivationsServiceServicer_to_server,
    "captioner": captioner_pb2_grpc.add_CaptionerServiceServicer_to_server,
    "summarizer": summarizer_pb2_grpc.add_SummarizerServiceServicer_to_server,
    "synthesizer": synthesizer_pb2_grpc.add_SynthesizerServiceServicer_to_server,
    "scorer": scorer_pb2_grpc.add_ScorerServiceServicer_to_server,
    JUDGE: scorer_pb2_grpc.add_ScorerServiceServicer_to_server,
}
_ALL = (*SERVICE_NAMES, JUDGE)

F = TypeVar("F", bound="Fakes")


class Fakes:
    """Five fake services and a judge, each on a port of its own.

    Attributes:
        artifacts: The store that they share with their callers.
        targets: Where they listen, by service, for `Services.connect`.
    """

    def __init__(self, artifacts: ArtifactStore) -> None:
        self.artifacts = artifacts
        self.activations = FakeActivations(artifacts)
        self.captioner = FakeCaptioner(artifacts)
        self.summarizer = FakeSummarizer(artifacts)
        self.synthesizer = FakeSynthesizer(artifacts)
        self.scorer = FakeScorer(artifacts)
        self.judge = FakeScorer(artifacts, JUDGE)
        self.targets: dict[str, str] = {}
        self._servers: dict[str, grpc.Server] = {}

    def start(self, name: str) -> None:
        """Starts a service, on its old port if it had one."""
        options = (*CHANNEL_OPTIONS, ("grpc.so_reuseport", 0))
        server = grpc.server(ThreadPoolExecutor(16, thread_name_prefix=name), options=options)
        _ADD[name](getattr(self, name), server)
        full_name = f"dnd.v1.{('scorer' if name == JUDGE else name).capitalize()}Service"
        checker = health.HealthServicer()
        for status_name in ("", full_name):
            checker.set(status_name, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(checker, server)
        names = (full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        port = server.add_insecure_port(self.targets.get(name, "127.0.0.1:0"))
        self.targets[name] = f"127.0.0.1:{port}"
        server.start()
        self._servers[name] = server

    def stop(self, name: str) -> None:
        """Stops a service at once: whoever calls it finds nobody there."""
        server = self._servers.pop(name, None)
        if server is not None:
            server.stop(0).wait()

    def clear_faults(self) -> None:
        """No more faults, all services up, all counts at 0."""
        for name in _ALL:
            getattr(self, name).faults.clear()
            if name not in self._servers:
                self.start(name)


@contextmanager
def start_fakes(artifacts: ArtifactStore | str | Path, kind: type[F] = Fakes) -> Iterator[F]:  # type: ignore[assignment]
    """Five fake services and a judge on free loopback ports, until the block ends.

    Args:
        artifacts: The artifact store, or its folder.
        kind: Which fakes.
    """
    store = artifacts if isinstance(artifacts, ArtifactStore) else ArtifactStore(artifacts)
    fakes = kind(store)
    try:
        for name in _ALL:
            fakes.start(name)
        yield fakes
    finally:
        for name in _ALL:
            fakes.stop(name)
