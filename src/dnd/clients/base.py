"""What the clients of the five services share."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from dnd import convert, telemetry
from dnd.clients.channels import DEADLINE_S, EndpointPool, error_of
from dnd.errors import Cancelled, Internal
from dnd.serving.interceptor import rpc_attributes
from dnd.types import (
    RequestContext,
)
from dnd.v1 import (
    types_pb2,
)

M = TypeVar("M", bound=Message)


class Calls:
    """The calls under way for one piece of work; another thread can end all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[grpc.Future[Any]] = set()
        self._cancelled = False

    def cancel(self) -> None:
        """Ends what is under way and lets nothing more begin: both raise Cancelled."""
        with self._lock:
            self._cancelled = True
            running = list(self._running)
        for call in running:
            call.cancel()

    def wait(self, call: grpc.Future[Any]) -> Any:
        """The answer of `call`.

        Raises:
            Cancelled: Nobody needs it any more.
            grpc.RpcError: It failed.
        """
        with self._lock:
            self._running.add(call)
            if self._cancelled:
                call.cancel()
        try:
            return call.result()
        except grpc.FutureCancelledError:
            raise Cancelled("Nobody needs the answer any more.") from None
        finally:
            with self._lock:
                self._running.discard(call)


@dataclass
class StageClient:
    """What the clients of the five services share.

    Attributes:
        pool: The replicas.
        context: Sent with every request.
        deadline_s: Time for one call, seconds.
        calls: Where calls are kept while they are under way; None for calls that nobody ends.
    """

    pool: EndpointPool
    context: RequestContext = field(default_factory=RequestContext)
    deadline_s: float = DEADLINE_S
    calls: Calls | None = None

    def _call(self, stub_class: Any, method: str, request: Message, answer: type[M]) -> M:
        request.context.CopyFrom(convert.to_message(self.context, types_pb2.RequestContext))  # type: ignore[attr-defined]
        service = f"dnd.v1.{stub_class.__name__.removesuffix('Stub')}"
        attributes = {**rpc_attributes(f"{service}/{method}"), "dnd.job": self.context.job}
        with (
            self.pool.channel() as channel,
            telemetry.span(f"{service}/{method}", telemetry.CLIENT, attributes=attributes),
        ):
            request.context.trace_id = telemetry.trace_of(telemetry.traceparent())  # type: ignore[attr-defined]
            rpc = getattr(stub_class(channel), method)
            how: dict[str, Any] = {
                "timeout": self.deadline_s,
                "wait_for_ready": True,
                "metadata": telemetry.metadata(),
            }
            try:
                if self.calls is None:
                    response = rpc(request, **how)
                else:
                    response = self.calls.wait(rpc.future(request, **how))
            except grpc.RpcError as error:
                raise error_of(error, self.pool.name) from None
        assert isinstance(response, answer)
        return response


def in_order(num_asked: int, items: Sequence[Any], service: str) -> None:
    """Raises Internal unless a reply has as many items as were asked for."""
    if len(items) != num_asked:
        raise Internal(f"The {service} service answered {len(items)} items for {num_asked}.")
