"""A service as a process of its own, started as an operator starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

START_S = 240.0


def _of_services() -> tuple[str, Path]:
    image = os.environ.get("REPLAYED_IMAGE")
    if image:
        return str(Path(image) / "venv" / "bin" / "python"), Path(image) / "app"
    return sys.executable, Path(__file__).parent.parent / "src"


PYTHON, SOURCE = _of_services()
"""What services are started with and where their modules are: this checkout's, or those of the
image that replay_image.py has built and runs contract tests against."""


@dataclass(frozen=True)
class Running:
    """A service that is ready.

    Attributes:
        process: The process.
        address: host:port of its gRPC server.
        metrics: URL of its metrics page.
        artifacts: Root of its artifact store.
    """

    process: subprocess.Popen[str]
    address: str
    metrics: str
    artifacts: Path

    def check_watchable(self, service: str) -> None:
        """Asserts that health and reflection know `service`, and that it is serving."""
        with grpc.insecure_channel(self.address) as channel:
            for name in ("", service):
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(service=name), timeout=10
                )
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            asked = reflection_pb2.ServerReflectionRequest(list_services="")
            (listed,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                iter([asked]), timeout=10
            )
        names = {one.name for one in listed.list_services_response.service}
        assert {service, "grpc.health.v1.Health"} <= names

    def num_queued(self) -> int:
        """Items that the server has admitted and not answered, from its metrics page."""
        with urllib.request.urlopen(self.metrics, timeout=10) as page:
            lines = page.read().decode().splitlines()
        (line,) = (line for line in lines if line.startswith("dnd_queued_items "))
        return int(float(line.split()[1]))

    def stop(self) -> tuple[int, str]:
        """Sends SIGTERM and waits; exit status and everything it wrote to stderr."""
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=60)
        return self.process.returncode, log


@contextmanager
def run_service(stage: str, folder: Path, **settings: object) -> Iterator[Running]:
    """`python -m dnd_services.<stage>` with DND_* variables, killed at the end if it still runs."""
    ready = folder / "endpoints.json"
    artifacts = folder / "artifacts"
    variables = {"artifacts": artifacts, "endpoints_file": ready, "drain_s": 5} | settings
    process = start(stage, variables)
    try:
        until = time.monotonic() + START_S
        while not ready.exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < until, f"{stage} is not ready after {START_S} s"
            time.sleep(0.05)
        endpoints = json.loads(ready.read_text())
        yield Running(process, endpoints["address"], endpoints["metrics"], artifacts)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def start(stage: str, variables: Mapping[str, object]) -> subprocess.Popen[str]:
    """Starts a service; its stderr is a pipe."""
    inherited = {name: value for name, value in os.environ.items() if name[:4] != "DND_"}
    return subprocess.Popen(
        [PYTHON, "-P", "-m", f"dnd_services.{stage}"],
        env=inherited
        | {"PYTHONPATH": str(SOURCE), "HF_HUB_OFFLINE": "1"}
        | {f"DND_{name.upper()}": str(value) for name, value in variables.items()},
        stderr=subprocess.PIPE,
        text=True,
    )


def exit_of(stage: str, **settings: object) -> tuple[int, str]:
    """Exit status and stderr of a service that is expected not to start."""
    process = start(stage, settings)
    try:
        _, log = process.communicate(timeout=START_S)
    finally:
        process.kill()
    return process.returncode, log
