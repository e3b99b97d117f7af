"""A stage's servicer behind a real gRPC server on loopback, in the test's own event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from dnd.serving import Metrics, StageService
from dnd.serving.interceptor import REASON_KEY, ErrorInterceptor


@asynccontextmanager
async def serve(service: StageService, metrics: Metrics) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to `service`, which is closed at the end."""
    server = grpc.aio.server(interceptors=[ErrorInterceptor(metrics)])
    service.add(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(0)
        await service.close()


def reason(error: grpc.aio.AioRpcError) -> str:
    """Name of the error class that a server raised."""
    return dict(error.trailing_metadata() or ()).get(REASON_KEY, "")
