"""A browser's way to send a token: a form, and a cookie that no script can read."""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from dnd_services.coordinator.access import Gate
from dnd_services.coordinator.web.calls import TOKEN_COOKIE, peer_of, refuse_other_sites
from dnd_services.coordinator.web.pages.answers import HEADERS, PageRoute

LOGIN = "/login"
_DAY_S = 24 * 3600

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.post(LOGIN)
async def login(request: Request) -> Response:
    """Takes the secret that a form sends; a wrong one leads to the form again (`error_page`)."""
    refuse_other_sites(request)
    gate: Gate = request.app.state.gate
    sent = parse_qs((await request.body()).decode(errors="replace"))
    secret = sent.get("token", [""])[0].strip()
    target = sent.get("next", ["/"])[0]
    if not target.startswith("/") or target.startswith(("//", "/\\")):
        target = "/"
    await gate.identify(secret, peer_of(request))
    answer = RedirectResponse(target, 303, headers=HEADERS)
    answer.set_cookie(
        TOKEN_COOKIE,
        secret,
        max_age=_DAY_S,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer
