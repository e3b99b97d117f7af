"""Answers of the explorer: pages, parts of pages, pictures, and errors as pages."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import Scope

from dnd.errors import DndError, Internal, InvalidInput, NotFound, Unauthenticated
from dnd.explorer.links import ServerLinks
from dnd.explorer.site import asset_digests, render
from dnd_services.coordinator.web import problems

log = logging.getLogger("dnd.server")

# Nothing is loaded from elsewhere, no style or script stands in a page, nobody frames it.
CONTENT_POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
FOREVER = "private, max-age=31536000, immutable"
_WANTED = "An operator makes one with `dnd tokens create`."
_TITLES = {404: "Not found", 400: "That does not fit", 403: "Not allowed", 503: "Not there now"}


def page(request: Request, template: str, **values: Any) -> HTMLResponse:
    """A page for the browser."""
    html = render(template, links_of(request), **values)
    return HTMLResponse(html, headers={**HEADERS, "Cache-Control": "no-store"})


def live_page(request: Request, name: str, *, ended: bool, **values: Any) -> HTMLResponse:
    """A page, or (where its script asks so) only what changes until something has ended."""
    if request.headers.get("x-part") != "live":
        live = "" if ended else request.url.path
        return page(request, f"{name}.html.j2", live=live, **values)
    answer = page(request, f"{name}_live.html.j2", **values)
    if ended:
        answer.headers["X-Ended"] = "1"
    return answer


def links_of(request: Request) -> ServerLinks:
    """Addresses of pages as whoever asks sees them."""
    return ServerLinks(request.scope.get("root_path", ""), asset_digests())


def kept_for_ever(request: Request, data: bytes, media_type: str) -> Response:
    """What never changes at its address."""
    tag = f'"{hashlib.sha256(data).hexdigest()[:20]}"'
    headers = {**HEADERS, "Cache-Control": FOREVER, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=media_type, headers=headers)


async def read_body(request: Request, max_bytes: int) -> bytes:
    """What a script of ours has sent.

    Raises:
        InvalidInput: Another site has sent it, or it is too large.
    """
    if request.headers.get("x-part") != "try":  # which no other site's page can set
        raise InvalidInput("Pictures and words are sent from the explorer's own page.")
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > max_bytes:
            raise InvalidInput(f"That is more than {max_bytes:,} bytes: send something smaller.")
    return bytes(data)


def error_page(request: Request, error: DndError) -> HTMLResponse:
    """An error as a page; where a token is wanted, the form for it."""
    status = problems.status_of(error)
    links = links_of(request)
    if isinstance(error, Unauthenticated):
        html = render("login.html.j2", links, message=_WANTED, next=request.url.path)
    else:
        title = _TITLES.get(status, "Something went wrong")
        html = render("error.html.j2", links, status=status, title=title, message=error.message)
    return HTMLResponse(html, status, headers={**HEADERS, "Cache-Control": "no-store"})


class PageRoute(APIRoute):
    """A route whose errors are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except DndError as error:
                return error_page(request, error)
            except RequestValidationError as error:
                if any(one["loc"][0] == "path" for one in error.errors()):
                    return error_page(request, NotFound(f"There is nothing at {request.url.path}."))
                return error_page(request, problems.describe(error))
            except Exception as error:
                log.error("page %s failed", request.url.path, exc_info=error)
                name = type(error).__name__
                return error_page(request, Internal(f"{name}; the server's log has the details."))

        return handled


class ElsewhereRoute(PageRoute):
    """Takes what no other route of the explorer takes, from browsers only; REST is none of it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        asked = Headers(scope=scope).get("accept", "") if scope["type"] == "http" else ""
        if "text/html" not in asked or scope["path"].startswith("/api/"):
            return Match.NONE, {}
        return super().matches(scope)
