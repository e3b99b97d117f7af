"""Streams of the API over HTTP: server-sent events, and lines of JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import StreamingResponse
from google.protobuf.message import Message

from dnd.errors import DndError
from dnd_services.coordinator.web import json_forms, problems

EVENTS = "text/event-stream"
LINES = "application/x-ndjson"
BEAT_S = 15.0
"""How often a silent stream of events shows that it is alive, seconds."""


async def stream_events(messages: AsyncIterator[Message]) -> StreamingResponse:
    """Messages as server-sent events; the resume token of a message is the event's id."""
    return StreamingResponse(
        _events(messages, await _first(messages)),
        media_type=EVENTS,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def stream_lines(messages: AsyncIterator[Message]) -> StreamingResponse:
    """Messages as lines of JSON; an error on the way is the last line."""
    return StreamingResponse(_lines(messages, await _first(messages)), media_type=LINES)


async def _first(messages: AsyncIterator[Message]) -> Message | None:
    """The first message: what goes wrong before it is an answer of its own."""
    return await anext(messages, None)


async def _events(messages: AsyncIterator[Message], first: Message | None) -> AsyncIterator[str]:
    if first is None:
        return
    yield _event(first)
    upcoming: asyncio.Future[Message | None] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(_first(messages))
            done, _ = await asyncio.wait([upcoming], timeout=BEAT_S)
            if not done:
                yield ": still there\n\n"
                continue
            message, upcoming = upcoming.result(), None
            if message is None:
                return
            yield _event(message)
    except DndError as error:
        yield f"event: problem\ndata: {json.dumps(problems.problem_of(error))}\n\n"
    finally:
        if upcoming is not None:
            upcoming.cancel()


def _event(message: Message) -> str:
    token = getattr(message, "resume_token", "")
    head = f"id: {token}\n" if token else ""
    return f"{head}data: {_text(message)}\n\n"


async def _lines(messages: AsyncIterator[Message], first: Message | None) -> AsyncIterator[str]:
    try:
        if first is not None:
            yield _text(first) + "\n"
        async for message in messages:
            yield _text(message) + "\n"
    except DndError as error:
        yield json.dumps({"problem": problems.problem_of(error)}) + "\n"


def _text(message: Message) -> str:
    plain: dict[str, Any] = json_forms.to_plain(message)
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
