"""What the clients of the five services share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from dnd import convert
from dnd.clients.channels import DEADLINE_S, EndpointPool, error_of
from dnd.errors import Internal
from dnd.types import (
    RequestContext,
)
from dnd.v1 import (
    types_pb2,
)

M = TypeVar("M", bound=Message)


@dataclass
class StageClient:
    """What the clients of the five services share.

    Attributes:
        pool: The replicas.
        context: Sent with every request.
        deadline_s: Time for one call, seconds.
    """

    pool: EndpointPool
    context: RequestContext = field(default_factory=RequestContext)
    deadline_s: float = DEADLINE_S

    def _call(self, stub_class: Any, method: str, request: Message, answer: type[M]) -> M:
        request.context.CopyFrom(convert.to_message(self.context, types_pb2.RequestContext))  # type: ignore[attr-defined]
        with self.pool.channel() as channel:
            try:
                response = getattr(stub_class(channel), method)(
                    request, timeout=self.deadline_s, wait_for_ready=True
                )
            except grpc.RpcError as error:
                raise error_of(error, self.pool.name) from None
        assert isinstance(response, answer)
        return response


def in_order(num_asked: int, items: Sequence[Any], service: str) -> None:
    """Raises Internal unless a reply has as many items as were asked for."""
    if len(items) != num_asked:
        raise Internal(f"The {service} service answered {len(items)} items for {num_asked}.")
