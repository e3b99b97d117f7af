"""The web application: REST under /api/v1, the explorer's pages, /healthz."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from dnd.serving import Metrics
from dnd_services.coordinator.access import Gate
from dnd_services.coordinator.web import pages, problems, rest
from dnd_services.coordinator.web.calls import Servicer
from dnd_services.coordinator.web.guarding import Guarding
from dnd_services.coordinator.web.pages import login

PREFIX = "/api/v1"


def create_app(servicer: Servicer, gate: Gate, metrics: Metrics) -> FastAPI:
    """The application over the servicer that answers the gRPC API too; its calls are counted alike.

    Routes take their calls from `calls_of`, so that whoever asks is known in one place.
    """
    app = _make_app()
    app.state.servicer = servicer
    app.state.gate = gate
    app.state.metrics = metrics
    return app


def openapi() -> dict[str, Any]:
    """What OpenAPI says of REST; docs/openapi.json is the same."""
    return _make_app().openapi()


def _make_app() -> FastAPI:
    app = FastAPI(
        title="Describe-and-Dissect",
        version="1",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(Guarding)
    problems.add_handlers(app)

    @app.get("/healthz", include_in_schema=False)
    async def health() -> dict[str, str]:
        return {"status": "serving"}

    app.include_router(rest.make_router(), prefix=PREFIX)
    app.include_router(login.router)
    app.include_router(pages.router)
    return app
