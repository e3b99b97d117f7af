"""The coordinator's API in this process, over a desk: the servicer, and REST over it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from coordinator_desk import Desk

from dnd.serving import Metrics
from dnd_services.coordinator.access import Gate
from dnd_services.coordinator.servicer import CoordinatorServicer
from dnd_services.coordinator.web.app import create_app


def make_servicer(desk: Desk) -> CoordinatorServicer:
    """The servicer on the desk's record; nothing runs before `desk.run_to_end`."""
    return CoordinatorServicer(
        desk.store, desk.services, desk.settings, nudge=lambda: None, budgets=desk.budgets
    )


@asynccontextmanager
async def serve_web(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    """An HTTP client of the web application, without a socket between them."""
    servicer = make_servicer(desk)
    gate = Gate(desk.store, desk.settings)
    transport = httpx2.ASGITransport(
        create_app(servicer, gate, Metrics()), raise_app_exceptions=False
    )
    try:
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield client
    finally:
        servicer.close()
