"""The API's methods as REST and the pages call them: the servicer itself, without a channel."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from fastapi import Request
from google.protobuf.message import Message

from dnd.errors import PermissionDenied
from dnd.serving import Metrics
from dnd.serving.interceptor import answering, code_of
from dnd.settings import is_loopback
from dnd.telemetry import TRACEPARENT
from dnd.tokens import BEARER, Token
from dnd.v1 import coordinator_pb2_grpc
from dnd_services.coordinator.access import Gate, check_role

M = TypeVar("M", bound=Message)

Servicer = coordinator_pb2_grpc.CoordinatorServiceServicer
TENANT_HEADER = "x-dnd-tenant"
TOKEN_COOKIE = "dnd_token"


class Calls:
    """Calls on behalf of whoever sent an HTTP request.

        job = (await calls.ask(pb2.GetJobRequest(job_id=job_id), pb2.GetJobResponse)).job

    Errors are those of `dnd.errors`; `problems.py` makes answers of them.

    Args:
        servicer: What answers the gRPC API too.
        metrics: Where its calls are counted.
        tenant: Whose jobs.
        token: Of the caller; None where the server takes no tokens.
        parent: `traceparent` of the caller; empty for none.
    """

    def __init__(
        self,
        servicer: Servicer,
        metrics: Metrics,
        tenant: str,
        token: Token | None,
        parent: str = "",
    ) -> None:
        self._servicer = servicer
        self._metrics = metrics
        self.tenant = tenant
        self._token = token
        self._parent = parent

    async def ask(self, request: Message, answer: type[M]) -> M:
        """The answer of the method that takes `request`."""
        with self._counted(request):
            response = await self._method(request)(request, None)
        assert isinstance(response, answer)
        return response

    async def follow(self, request: Message, answer: type[M]) -> AsyncGenerator[M, None]:
        """The messages of the method that takes `request` and answers a stream."""
        with self._counted(request):
            async for message in self._method(request)(request, None):
                assert isinstance(message, answer)
                yield message

    @contextmanager
    def _counted(self, request: Message) -> Iterator[None]:
        """Counts and traces a call as if it had come over gRPC."""
        path = f"/dnd.v1.CoordinatorService/{type(request).__name__.removesuffix('Request')}"
        started, code = time.perf_counter(), "OK"
        try:
            with answering(path, request, self._parent):
                yield
        except BaseException as error:
            code = code_of(error)
            raise
        finally:
            self._metrics.count_rpc(path, code, time.perf_counter() - started)

    def _method(self, request: Message) -> Any:
        """The method of the request's name; the request is made the tenant's.

        Raises:
            PermissionDenied: The caller's role does not allow it.
        """
        method = type(request).__name__.removesuffix("Request")
        if self._token is not None:
            check_role(self._token, method)
        request.context.tenant = self.tenant  # type: ignore[attr-defined]
        return getattr(self._servicer, method)


async def calls_of(request: Request) -> Calls:
    """What a route asks the API with: `calls: Annotated[Calls, Depends(calls_of)]`.

    Raises:
        Unauthenticated: The server takes tokens, and none or no valid one came.
        PermissionDenied: A page of another site has sent the request, or the tenant is another.
        Overloaded: Too many calls, or too many wrong tokens.
    """
    state = request.app.state
    gate: Gate = state.gate
    refuse_other_sites(request)
    tenant = request.headers.get(TENANT_HEADER, "")
    parent = request.headers.get(TRACEPARENT, "")
    if gate.is_open:
        _refuse_other_names(request)
        return Calls(state.servicer, state.metrics, tenant, None, parent)
    cookie = request.cookies.get(TOKEN_COOKIE, "")
    authorization = request.headers.get("authorization", "") or (cookie and BEARER + cookie)
    token = await gate.identify(authorization, peer_of(request))
    gate.count_call(token)
    if tenant not in ("", token.tenant):
        raise PermissionDenied(f"The token is of tenant {token.tenant!r}: leave the tenant out.")
    return Calls(state.servicer, state.metrics, token.tenant, token, parent)


def peer_of(request: Request) -> str:
    """Where the caller is."""
    return request.client.host if request.client else ""


def refuse_other_sites(request: Request) -> None:
    """A browser sends cookies, and reaches loopback, on behalf of every page that it shows."""
    site = request.headers.get("sec-fetch-site", "none")
    if request.method not in ("GET", "HEAD") and site not in ("none", "same-origin"):
        raise PermissionDenied("The request comes from a page of another site.")


def _refuse_other_names(request: Request) -> None:
    """Another site's name may lead to loopback, and its pages could then read everything.

    With mutual TLS the caller has shown a certificate.
    """
    if request.url.scheme == "http" and not is_loopback((request.url.hostname or "").strip("[]")):
        raise PermissionDenied(
            f"Without authentication this server answers to 127.0.0.1 and localhost only, not to "
            f"{str(request.url.hostname)[:60]!r}."
        )
