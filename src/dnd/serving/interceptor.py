"""The one place where an error becomes a gRPC status, and where RPCs are counted and traced."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from dnd import logs, telemetry
from dnd.errors import CODES, DndError, Internal, VersionSkew
from dnd.serving.metrics import Metrics

log = logging.getLogger("dnd.server")

_MAX_ID = 64
"""Characters of an id in lines and spans: who calls may send what they like."""
_COORDINATOR = "/dnd.v1.CoordinatorService/"
_UNCOUNTED = ("/grpc.health.", "/grpc.reflection.")
REASON_KEY = "dnd-reason"
RETRY_KEY = "grpc-retry-pushback-ms"


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns `dnd.errors` into status codes with the class name as trailing metadata."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_UNCOUNTED):
            return handler
        codecs = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, handler.unary_unary), **codecs
            )
        assert handler.unary_stream, f"{method}: only unary requests are served"
        return grpc.unary_stream_rpc_method_handler(
            self._stream(method, handler.unary_stream), **codecs
        )

    def _unary(self, method: str, behaviour: Any) -> Any:
        async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started = time.perf_counter()
            code = "OK"
            with answering(method, request, _parent(context)):
                try:
                    expect_known_fields(method, request)
                    return await behaviour(request, context)
                except (Exception, asyncio.CancelledError) as error:
                    code = _note(error)
                    await _abort(method, error, context)
                finally:
                    self._record(method, code, started)

        return answer

    def _stream(self, method: str, behaviour: Any) -> Any:
        async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started = time.perf_counter()
            code = "OK"
            with answering(method, request, _parent(context)):
                try:
                    expect_known_fields(method, request)
                    async for response in behaviour(request, context):
                        yield response
                except (Exception, asyncio.CancelledError) as error:
                    code = _note(error)
                    await _abort(method, error, context)
                finally:
                    self._record(method, code, started)

        return answer

    def _record(self, method: str, code: str, started: float) -> None:
        self._metrics.count_rpc(method, code, time.perf_counter() - started)


@contextmanager
def answering(method: str, request: Any, parent: str) -> Iterator[None]:
    """The span of a call, and the fields of log lines while it is answered.

    Args:
        method: "/dnd.v1.ScorerService/ScoreConcepts" for example.
        request: It names the job in its context, or asks about one.
        parent: The caller's `traceparent`; empty for none.
    """
    job = (request.context.job or getattr(request, "job_id", ""))[:_MAX_ID]
    attributes = {**rpc_attributes(method), **({"dnd.job": job} if job else {})}
    with (
        # The trace of the caller, for lines of a server that sends no traces itself.
        logs.bound(job=job, trace=request.context.trace_id[:_MAX_ID]),
        telemetry.span(method.lstrip("/"), telemetry.SERVER, parent, attributes),
    ):
        yield


def expect_known_fields(method: str, request: Any) -> None:
    """Refuses a request with fields that a later version has added: without them it means less.

    What is new in its context is left out: that says nothing of what is to be done. The coordinator
    looks itself at what it must not misread: its callers are told at once, and need not wait.

    Raises:
        VersionSkew: It has such fields.
    """
    if method.startswith(_COORDINATOR):
        return
    request.context.DiscardUnknownFields()
    size = request.ByteSize()
    request.DiscardUnknownFields()
    if request.ByteSize() != size:
        raise VersionSkew(
            f"{method}: the request has fields that this server does not know: it is of an older "
            "version than its caller. Upgrade it."
        )


def rpc_attributes(method: str) -> dict[str, str]:
    """What spans of callers and servers say of a method."""
    service, _, name = method.lstrip("/").partition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}


def _parent(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The caller's `traceparent`; empty for none."""
    return telemetry.parent_in(tuple(context.invocation_metadata() or ()))


def _note(error: BaseException) -> str:
    """The code of an error, which the open span is marked with."""
    if not isinstance(error, asyncio.CancelledError):
        telemetry.fail(type(error).__name__)
    return code_of(error)


def code_of(error: BaseException) -> str:
    """The gRPC code that a call ends with when it raises `error`."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):  # its caller has gone
        return "CANCELLED"
    return CODES.get(type(error), "INTERNAL") if isinstance(error, DndError) else "INTERNAL"


def trailers_of(error: DndError) -> tuple[tuple[str, str], ...]:
    """The trailing metadata that an error is sent with: its class, and when to try again."""
    trailers = [(REASON_KEY, type(error).__name__)]
    if error.retry_after_s is not None:
        trailers.append((RETRY_KEY, str(int(error.retry_after_s * 1000))))
    return tuple(trailers)


async def _abort(
    method: str, error: BaseException, context: grpc.aio.ServicerContext[Any, Any]
) -> None:
    if isinstance(error, (asyncio.CancelledError, grpc.aio.AbortError)):
        raise error
    if not isinstance(error, DndError):
        log.error("%s failed", method, exc_info=error)
        error = Internal(f"{method}: {type(error).__name__}; the server's log has the details.")
    code = getattr(grpc.StatusCode, CODES[type(error)])
    await context.abort(code, error.message, trailers_of(error))
