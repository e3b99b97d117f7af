"""Limits on what comes in over HTTP, and headers on all that goes out."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dnd.errors import DeadlineExceeded, DndError, Overloaded, RequestTooLarge
from dnd_services.coordinator.web import problems

MAX_BODY_BYTES = 16 * 2**20
MAX_HELD_BYTES = 256 * 2**20
"""Of the bodies of all requests together: they are read before anybody knows who sends them."""
BODY_S = 20.0
"""Time for the body of a request to arrive, seconds."""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Guarding:
    """Reads the body of a request, within limits, before anything else looks at it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._num_held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        held = _Held()
        try:
            try:
                body = await self._read_body(receive, held)
            except DndError as error:
                answer = problems.answer(error)
                answer.headers["Connection"] = "close"  # the rest of the body is not waited for
                await answer(scope, receive, send_with_headers)
                return
            if body is not None:  # the caller is still there
                await self._app(scope, _replay(body, receive), send_with_headers)
        finally:
            self._num_held_bytes -= held.num_bytes

    async def _read_body(self, receive: Receive, held: _Held) -> bytes | None:
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(BODY_S):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    parts.append(message.get("body", b""))
                    self._hold(len(parts[-1]), held)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise DeadlineExceeded(f"The body did not arrive within {BODY_S:.0f} s.") from None

    def _hold(self, num_bytes: int, held: _Held) -> None:
        """Counts what has come of a body.

        Raises:
            RequestTooLarge: It is too much for one request.
            Overloaded: It is too much together with what others send.
        """
        if held.num_bytes + num_bytes > MAX_BODY_BYTES:
            raise RequestTooLarge(
                f"The body has more than {MAX_BODY_BYTES >> 20} MiB: larger requests go over gRPC."
            )
        if self._num_held_bytes + num_bytes > MAX_HELD_BYTES:
            raise Overloaded("Too much is being sent at the same time: try again in a few seconds.")
        held.num_bytes += num_bytes
        self._num_held_bytes += num_bytes


@dataclass
class _Held:
    """What has come of the body of one request."""

    num_bytes: int = 0


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read, then what comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
