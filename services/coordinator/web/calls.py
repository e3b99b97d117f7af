"""The API's methods as REST and the pages call them: the servicer itself, without a channel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypeVar, cast

from fastapi import Request
from google.protobuf.message import Message

from dnd.v1 import coordinator_pb2_grpc

M = TypeVar("M", bound=Message)

Servicer = coordinator_pb2_grpc.CoordinatorServiceServicer
TENANT_HEADER = "x-dnd-tenant"


class Calls:
    """Calls on behalf of whoever sent an HTTP request.

        job = (await calls.ask(pb2.GetJobRequest(job_id=job_id), pb2.GetJobResponse)).job

    Errors are those of `dnd.errors`; `problems.py` makes answers of them.

    Args:
        servicer: What answers the gRPC API too.
        tenant: Whose jobs.
    """

    def __init__(self, servicer: Servicer, tenant: str) -> None:
        self._servicer = servicer
        self.tenant = tenant

    async def ask(self, request: Message, answer: type[M]) -> M:
        """The answer of the method that takes `request`."""
        response = await self._method(request)(request, None)
        assert isinstance(response, answer)
        return response

    def follow(self, request: Message, answer: type[M]) -> AsyncIterator[M]:
        """The messages of the method that takes `request` and answers a stream."""
        return cast("AsyncIterator[M]", self._method(request)(request, None))

    def _method(self, request: Message) -> Any:
        """The method of the request's name; the request is made the tenant's."""
        request.context.tenant = self.tenant  # type: ignore[attr-defined]
        return getattr(self._servicer, type(request).__name__.removesuffix("Request"))


def calls_of(request: Request) -> Calls:
    """What a route asks the API with: `calls: Annotated[Calls, Depends(calls_of)]`."""
    return Calls(request.app.state.servicer, request.headers.get(TENANT_HEADER, ""))
