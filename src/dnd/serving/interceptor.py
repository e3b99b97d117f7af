"""The one place where an error becomes a gRPC status, and where RPCs are counted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from dnd.errors import CODES, DndError, Internal
from dnd.serving.metrics import Metrics

log = logging.getLogger("dnd.server")

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
            try:
                return await behaviour(request, context)
            except (Exception, asyncio.CancelledError) as error:
                code = _code_of(error)
                await _abort(method, error, context)
            finally:
                self._record(method, code, started)

        return answer

    def _stream(self, method: str, behaviour: Any) -> Any:
        async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started = time.perf_counter()
            code = "OK"
            try:
                async for response in behaviour(request, context):
                    yield response
            except (Exception, asyncio.CancelledError) as error:
                code = _code_of(error)
                await _abort(method, error, context)
            finally:
                self._record(method, code, started)

        return answer

    def _record(self, method: str, code: str, started: float) -> None:
        self._metrics.rpcs.labels(method, code).inc()
        self._metrics.rpc_seconds.labels(method).observe(time.perf_counter() - started)


def _code_of(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "CANCELLED"
    return CODES.get(type(error), "INTERNAL") if isinstance(error, DndError) else "INTERNAL"


async def _abort(
    method: str, error: BaseException, context: grpc.aio.ServicerContext[Any, Any]
) -> None:
    if isinstance(error, (asyncio.CancelledError, grpc.aio.AbortError)):
        raise error
    if not isinstance(error, DndError):
        log.error("%s failed", method, exc_info=error)
        error = Internal(f"{method}: {type(error).__name__}; the server's log has the details.")
    trailers = [(REASON_KEY, type(error).__name__)]
    if error.retry_after_s is not None:
        trailers.append((RETRY_KEY, str(int(error.retry_after_s * 1000))))
    await context.abort(
        getattr(grpc.StatusCode, CODES[type(error)]), error.message, tuple(trailers)
    )
