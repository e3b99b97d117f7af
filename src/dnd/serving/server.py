"""Start and end of a gRPC server process: the same for the five stages and the coordinator."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
from grpc_health.v1 import _async as health_aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from dnd import logs, telemetry
from dnd import settings as settings_module
from dnd.errors import BadSetting, DndError
from dnd.serving.interceptor import ErrorInterceptor
from dnd.serving.metrics import Metrics
from dnd.settings import ServerSettings

log = logging.getLogger("dnd.server")

MAX_MESSAGE_BYTES = 64 * 2**20
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)
_SERVER_OPTIONS = (
    *CHANNEL_OPTIONS,
    ("grpc.so_reuseport", 0),
    ("grpc.max_connection_age_ms", 300_000),
    ("grpc.max_connection_age_grace_ms", 120_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


@dataclass(frozen=True)
class StageService:
    """A servicer that is ready to serve.

    Attributes:
        full_name: Name of the gRPC service, for health and reflection.
        add: Adds the servicer to a server.
        close: Ends what the servicer runs; called once the last call has ended.
        start: Starts what is served besides gRPC; what goes into the endpoints file about it.
    """

    full_name: str
    add: Callable[[grpc.aio.Server], None]
    close: Callable[[], Awaitable[None]]
    start: Callable[[], Awaitable[Mapping[str, str]]] | None = None


S = TypeVar("S", bound=ServerSettings)


def run(
    name: str,
    settings_class: type[S],
    build: Callable[[S, Metrics], StageService],
    argv: Sequence[str] | None = None,
) -> int:
    """Runs a server until SIGTERM or SIGINT, and returns the exit status of the process.

    The port is bound before `build` loads a model, so that a taken port is reported at once; calls
    wait until the server is started. A bad setting or missing model ends the process with status 2
    and one sentence.
    """
    try:
        settings = settings_module.load(settings_class, argv, prog=name)
        logs.set_up(name, settings.log_level, settings.log_format)
        telemetry.start(name)
        return asyncio.run(_serve(name, settings, build))
    except DndError as error:
        logs.say_why(name, error.message)
        return 2
    finally:
        telemetry.stop()


async def _serve(name: str, settings: S, build: Callable[[S, Metrics], StageService]) -> int:
    metrics = Metrics()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)

    server = grpc.aio.server(interceptors=[ErrorInterceptor(metrics)], options=_SERVER_OPTIONS)
    port = _bind(server, settings)
    probed = grpc.aio.server() if settings.tls else None
    health_port = _bind_health(probed, settings) if probed else 0
    metrics_port = _bind_metrics(metrics, settings)
    service = await asyncio.to_thread(build, settings, metrics)
    checker = await start_server(server, service)
    more = dict(await service.start()) if service.start else {}
    if probed:
        health_pb2_grpc.add_HealthServicer_to_server(checker, probed)
        await probed.start()
        more["health"] = f"{settings.host}:{health_port}"
    _announce(settings, port, metrics_port, more)
    log.info("serving on %s:%d, metrics on %s:%d", settings.host, port, settings.host, metrics_port)

    await stopping.wait()
    log.info("draining for at most %.1f s", settings.drain_s)
    await checker.enter_graceful_shutdown()
    await server.stop(settings.drain_s)
    if probed:
        await probed.stop(0)
    await service.close()
    return 0


async def start_server(server: grpc.aio.Server, service: StageService) -> health_aio.HealthServicer:
    """Starts a server of `service` with health, which it returns, and reflection."""
    service.add(server)
    checker = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    names = (service.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    await server.start()
    for status_name in ("", service.full_name):
        await checker.set(status_name, health_pb2.HealthCheckResponse.SERVING)
    return checker


def _bind(server: grpc.aio.Server, settings: ServerSettings) -> int:
    tls = settings.tls
    address = _address(settings, settings.port)
    try:
        if tls:
            return server.add_secure_port(address, tls.server_credentials())
        return server.add_insecure_port(address)
    except RuntimeError:
        raise _port_taken("DND_PORT", settings.port, settings) from None


def _bind_health(server: grpc.aio.Server, settings: ServerSettings) -> int:
    """Probes speak no TLS: health gets a port of its own beside it."""
    try:
        return server.add_insecure_port(_address(settings, settings.health_port))
    except RuntimeError:
        raise _port_taken("DND_HEALTH_PORT", settings.health_port, settings) from None


def _address(settings: ServerSettings, port: int) -> str:
    return f"[{settings.host}]:{port}" if ":" in settings.host else f"{settings.host}:{port}"


def _port_taken(variable: str, port: int, settings: ServerSettings) -> BadSetting:
    return BadSetting(
        f"{variable} = {port}: the port is in use on {settings.host}; "
        "end the process that holds it or set another port (0 takes a free one)."
    )


def _bind_metrics(metrics: Metrics, settings: ServerSettings) -> int:
    try:
        http, _ = metrics.serve(settings.host, settings.metrics_port)
    except OSError as error:
        raise BadSetting(f"DND_METRICS_PORT = {settings.metrics_port}: {error.strerror}.") from None
    return int(http.server_port)


def _announce(
    settings: ServerSettings, port: int, metrics_port: int, more: Mapping[str, str]
) -> None:
    """Writes where the server listens, all at once, for whoever started it."""
    if not settings.endpoints_file:
        return
    path = Path(settings.endpoints_file)
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(
        json.dumps(
            {
                "pid": os.getpid(),
                "address": f"{settings.host}:{port}",
                "metrics": f"http://{settings.host}:{metrics_port}/metrics",
                **more,
            }
        )
    )
    draft.replace(path)
