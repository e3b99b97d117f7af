"""A connection to a coordinator: how its methods are called, whatever they are about."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from dnd import telemetry
from dnd.clients import EndpointPool, error_of
from dnd.convert import to_message
from dnd.errors import DeadlineExceeded, Transient
from dnd.tls import TlsFiles
from dnd.tokens import BEARER
from dnd.types import RequestContext
from dnd.v1 import coordinator_pb2_grpc, types_pb2

M = TypeVar("M", bound=Message)


class Connection:
    """Calls the methods of a coordinator by name; arguments are those of `dnd.client.Client`.

    Every request is sent with the tenant, the token, and the caller's trace where it has one.
    """

    def __init__(
        self,
        server: str,
        *,
        tenant: str,
        token: str,
        deadline_s: float,
        retry_s: float,
        tls: TlsFiles | None,
    ) -> None:
        self._pool = EndpointPool("coordinator", server, tls)
        self._metadata = (("authorization", BEARER + token),) if token else ()
        self._context = to_message(RequestContext(tenant=tenant), types_pb2.RequestContext)
        self._deadline_s = deadline_s
        self._retry_s = retry_s

    def close(self) -> None:
        """Closes the connection; calls under way fail."""
        self._pool.close()

    def ask(self, method: str, request: Message, answer: type[M]) -> M:
        """One unary call, repeated while its failure may pass and `retry_s` lasts."""
        until = time.monotonic() + self._retry_s
        pause = 0.2
        while True:
            try:
                with self._pool.channel() as channel:
                    try:
                        response = self._begin(channel, method, request, self._deadline_s)
                    except grpc.RpcError as error:
                        raise error_of(error, self._pool.name) from None
                assert isinstance(response, answer)
                return response
            except DeadlineExceeded:
                raise
            except Transient as error:
                wait = max(error.retry_after_s or 0.0, pause * random.uniform(0.75, 1.25))
                if time.monotonic() + wait > until:
                    raise
                time.sleep(wait)
                pause = min(pause * 2, 5.0)

    def pages(self, method: str, request: Any, answer: type[M]) -> Iterator[M]:
        """The answers of a method that lists, page after page, fetched as they are read."""
        while True:
            page: Any = self.ask(method, request, answer)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def follow(self, method: str, request: Message) -> Iterator[Any]:
        """The messages of something that goes on by itself, asked for again when a call ends.

        It ends with whoever reads it: `request` may be changed meanwhile, for the next call.
        """
        lost_at: float | None = None
        while True:
            try:
                for response in self.stream(method, request):
                    lost_at = None
                    yield response
            except DeadlineExceeded:
                continue  # it goes on, and is watched again
            except Transient:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > self._retry_s:
                    raise
            time.sleep(0.5)

    def stream(
        self, method: str, request: Message, deadline_s: float | None = None
    ) -> Iterator[Any]:
        """The messages of one call, for one deadline at most."""
        with self._pool.channel() as channel:
            call = self._begin(channel, method, request, deadline_s or self._deadline_s)
            try:
                yield from call
            except grpc.RpcError as error:
                raise error_of(error, self._pool.name) from None
            finally:
                call.cancel()

    def _begin(
        self, channel: grpc.Channel, method: str, request: Message, deadline_s: float
    ) -> Any:
        request.context.CopyFrom(self._context)  # type: ignore[attr-defined]
        stub: Any = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
        sent = (*self._metadata, *telemetry.metadata())
        return getattr(stub, method)(request, timeout=deadline_s, metadata=sent)
