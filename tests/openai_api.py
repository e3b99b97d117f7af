"""A fake of an OpenAI-compatible API: an HTTP server on loopback that answers what a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest


def completion(
    text: str | None, finish: str = "stop", usage: tuple[int, int] | None = (50, 4)
) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    body: dict[str, Any] = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "tiny",
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
    }
    if usage:
        body["usage"] = {
            "prompt_tokens": usage[0],
            "completion_tokens": usage[1],
            "total_tokens": sum(usage),
        }
    return body


def failure(message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "error", "code": code}}


@dataclass
class Api:
    """An HTTP server with one path; a test decides what it answers."""

    url: str = ""
    status: int = 200
    body: object = field(default_factory=lambda: completion("water"))
    kind: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    answer: Callable[[dict[str, Any]], object] | None = None
    release: asyncio.Event = field(default_factory=asyncio.Event)
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    num_open: int = 0
    most_open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                path = line.decode().split()[1]
                headers = {}
                while (raw := await reader.readline()).strip():
                    name, _, value = raw.decode().partition(":")
                    headers[name.lower()] = value.strip()
                data = await reader.readexactly(int(headers.get("content-length", 0)))
                request = json.loads(data)
                self.requests.append((path, headers, request))
                self.num_open += 1
                self.most_open = max(self.most_open, self.num_open)
                await self.release.wait()
                self.num_open -= 1
                body = self.answer(request) if self.answer else self.body
                payload = body if isinstance(body, bytes) else json.dumps(body).encode()
                kind = self.kind or "application/json"
                extra = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
                writer.write(
                    f"HTTP/1.1 {self.status} Said\r\nContent-Type: {kind}\r\n{extra}"
                    f"Content-Length: {len(payload)}\r\n\r\n".encode()
                    + payload
                )
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serve_api() -> AsyncIterator[Api]:
    """A running API, until the block ends."""
    running = Api()
    running.release.set()
    server = await asyncio.start_server(running.serve, "127.0.0.1", 0)
    running.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield running
    finally:
        running.release.set()
        server.close()


def without_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is no proxy's business."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
