"""The HTTP server inside the coordinator's process and event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from dnd.errors import BadSetting
from dnd.tls import TlsFiles

MAX_CONNECTIONS = 1000
HEAD_S = 10.0
"""Time for the head of a request to arrive, seconds."""


class WebServer:
    """Serves an application on a port that is taken when this is made.

    Args:
        tls: Files of mutual TLS, which are read once; None for plain HTTP.

    Raises:
        BadSetting: The port is in use.
    """

    def __init__(self, app: FastAPI, host: str, port: int, tls: TlsFiles | None = None) -> None:
        self._socket = _bind(host, port)
        self._task: asyncio.Task[None] | None = None
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if tls else 'http'}://{shown}:{self._socket.getsockname()[1]}"
        self._server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                http=_Protocol,
                ws="none",
                limit_concurrency=MAX_CONNECTIONS,
                timeout_graceful_shutdown=5,
                ssl_certfile=tls.cert if tls else None,
                ssl_keyfile=tls.key if tls else None,
                ssl_ca_certs=tls.ca if tls else None,
                ssl_cert_reqs=ssl.CERT_REQUIRED if tls else ssl.CERT_NONE,
            )
        )

    async def start(self) -> None:
        """Starts to serve."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0.01)
        if self._task.done():
            await self._task

    async def close(self) -> None:
        """Lets requests finish for a few seconds, then ends."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()


class _Protocol(H11Protocol):
    """Ends connections on which the head of a request does not arrive.

    uvicorn itself ends those on which nothing at all comes after a request.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self._start_timer()

    def _start_timer(self) -> asyncio.TimerHandle:
        return self.loop.call_later(HEAD_S, self.transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:  # a head has come
            self._timer.cancel()
        elif self._timer.cancelled():  # another one begins
            self._timer = self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._timer.cancel()


class _Server(uvicorn.Server):
    """Leaves signals to the process that it is a part of."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise BadSetting(
            f"DND_WEB_PORT = {port}: {error.strerror} on {host}; end the process that holds it or "
            "set another port (0 takes a free one)."
        ) from None
    found.set_inheritable(False)
    return found
