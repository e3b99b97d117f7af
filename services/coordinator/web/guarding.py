"""Limits on what comes in over HTTP, and headers on all that goes out."""

from __future__ import annotations

import asyncio

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dnd.errors import DeadlineExceeded, DndError, RequestTooLarge
from dnd_services.coordinator.web import problems

MAX_BODY_BYTES = 16 * 2**20
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

        try:
            body = await _read_body(receive)
        except DndError as error:
            await problems.answer(error)(scope, receive, send_with_headers)
            return
        if body is None:  # the caller has gone
            return
        await self._app(scope, _replay(body, receive), send_with_headers)


async def _read_body(receive: Receive) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > MAX_BODY_BYTES:
                    raise RequestTooLarge(
                        f"The body has more than {MAX_BODY_BYTES >> 20} MiB: larger requests go "
                        "over gRPC."
                    )
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise DeadlineExceeded(f"The body did not arrive within {BODY_S:.0f} s.") from None


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
