"""Errors as answers of the kind application/problem+json (RFC 9457), by the project's one table."""

from __future__ import annotations

import logging
import math
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from dnd.errors import CODES, DndError, Internal, InvalidInput, NotFound

log = logging.getLogger("dnd.server")

MEDIA_TYPE = "application/problem+json"

# Statuses of the gRPC codes in CODES, as google.rpc.Code names them.
STATUSES: dict[str, int] = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 409,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
}


def status_of(error: DndError) -> int:
    """The HTTP status of an error."""
    return STATUSES[CODES[type(error)]]


def problem_of(error: DndError) -> dict[str, Any]:
    """The body that describes an error: what gRPC callers see as code, reason and message."""
    return {
        "type": "about:blank",
        "title": type(error).__name__,
        "status": status_of(error),
        "detail": error.message,
        "code": CODES[type(error)],
    }


def answer(error: DndError) -> JSONResponse:
    """The answer that carries an error."""
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    return JSONResponse(problem_of(error), status_of(error), headers=headers, media_type=MEDIA_TYPE)


def describe(error: RequestValidationError) -> InvalidInput:
    """What is wrong with a request, all of it in one sentence."""
    parts = []
    for one in error.errors():
        place = ".".join(str(part) for part in one["loc"][1:]) or str(one["loc"][0])
        parts.append(f"{place}: {one['msg']}")
    return InvalidInput("; ".join(parts)[:2000] + ".")


def add_handlers(app: FastAPI) -> None:
    """Makes all errors of an app problems, those of the framework too."""

    @app.exception_handler(DndError)
    async def expected(request: Request, error: DndError) -> JSONResponse:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return answer(describe(error))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == HTTPStatus.NOT_FOUND:
            return answer(NotFound(f"There is nothing at {request.url.path}."))
        problem = problem_of(InvalidInput(str(error.detail))) | {"status": error.status_code}
        return JSONResponse(
            problem, error.status_code, headers=error.headers, media_type=MEDIA_TYPE
        )

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        name = type(error).__name__
        return answer(Internal(f"{request.url.path}: {name}; the server's log has the details."))
