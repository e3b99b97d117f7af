"""The web application: REST under /api/v1, the explorer's pages, /healthz."""

from __future__ import annotations

from fastapi import FastAPI

from dnd_services.coordinator.web import pages, problems, rest
from dnd_services.coordinator.web.calls import Servicer


def create_app(servicer: Servicer) -> FastAPI:
    """The application over the servicer that answers the gRPC API too.

    Routes take their calls from `calls_of`, so that whoever asks is known in one place.
    """
    app = FastAPI(
        title="Describe-and-Dissect",
        version="1",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.servicer = servicer
    problems.add_handlers(app)

    @app.get("/healthz", include_in_schema=False)
    async def health() -> dict[str, str]:
        return {"status": "serving"}

    app.include_router(rest.make_router(), prefix="/api/v1")
    app.include_router(pages.router)
    return app
