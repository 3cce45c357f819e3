"""Errors as answers: problems of RFC 9457, one shape for whatever goes wrong."""

import logging
import math
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Match
from starlette.types import Scope

from nearline.errors import (
    CorruptRelease,
    NotKept,
    NotReady,
    ReleaseError,
    ReleaseRefused,
    UnknownRelease,
)
from nearline.faults import words
from serving.errors import KINDS, Fault, NothingKept, ServiceError, ServiceNotReady
from serving.schema import Problem, WrongField

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


def errors(*codes: str) -> dict[int | str, dict[str, Any]]:
    """What the API's own description says of the errors that an operation may answer."""
    titles: dict[int | str, list[str]] = {}
    for kind in map(KINDS.__getitem__, codes):
        titles.setdefault(kind.status, []).append(kind.title)
    return {
        status: {"model": Problem, "description": " or ".join(found)}
        for status, found in titles.items()
    }


_ENTRY_CODES = ("unauthorized", "forbidden", "foreign_host", "too_many_requests")

ANYWHERE = errors("internal", *_ENTRY_CODES)
"""What every operation may answer."""

OF_KEYS = frozenset(KINDS[code].status for code in _ENTRY_CODES)
"""Those of it that only an operation with a role answers."""

_OF_RELEASES: dict[type[ReleaseError], str] = {
    UnknownRelease: "unknown_release",
    CorruptRelease: "corrupt_release",
    ReleaseRefused: "release_refused",
}
_CODES = {404: "not_found", 405: "method_not_allowed", 408: "too_slow", 413: "too_large"}
_TOLD_BY_US = ("too_slow", "too_large")
_MOST_FAULTS = 10


def problem_response(error: ServiceError, scope: Scope) -> JSONResponse:
    """An error as the answer to the request of `scope`."""
    problem = Problem(
        type=f"urn:nearline:problem:{error.code}",
        title=error.kind.title,
        status=error.status,
        detail=error.message,
        instance=scope["path"],
        code=error.code,
        request_id=scope["state"]["request_id"],
        errors=[WrongField(pointer=fault.pointer, detail=fault.detail) for fault in error.faults],
    )
    return JSONResponse(
        problem.model_dump(),
        status_code=error.status,
        media_type=MEDIA_TYPE,
        headers=dict(_headers(error)),
    )


def _headers(error: ServiceError) -> Iterator[tuple[str, str]]:
    if error.status == HTTPStatus.UNAUTHORIZED:
        yield "WWW-Authenticate", "Bearer"
    if error.status == HTTPStatus.REQUEST_TIMEOUT:
        yield "Connection", "close"
    if error.retry_after_s is not None:
        yield "Retry-After", str(math.ceil(error.retry_after_s))


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error of the app with a problem.

    None of the handlers waits: in the loop, they need no thread that others may hold up.
    """

    @app.exception_handler(ServiceError)
    async def of_ours(request: Request, error: ServiceError) -> JSONResponse:
        return problem_response(error, request.scope)

    @app.exception_handler(NotReady)
    async def not_ready(request: Request, error: NotReady) -> JSONResponse:
        return problem_response(ServiceNotReady(str(error)), request.scope)

    @app.exception_handler(NotKept)
    async def not_kept(request: Request, error: NotKept) -> JSONResponse:
        log.error("request %s was not kept: %s", request.state.request_id, error)
        return problem_response(NothingKept("the disk keeps nothing now"), request.scope)

    @app.exception_handler(ReleaseError)
    async def of_releases(request: Request, error: ReleaseError) -> JSONResponse:
        code = next(_OF_RELEASES[kind] for kind in type(error).mro() if kind in _OF_RELEASES)
        return problem_response(ServiceError(str(error), code=code), request.scope)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()[:_MOST_FAULTS]
        if found[0]["type"] == "json_invalid":
            message = f"the body is no JSON: {found[0]['ctx']['error']}"
            return problem_response(ServiceError(message, code="bad_request"), request.scope)
        faults = [_fault(each) for each in found]
        message = "; ".join(f"{fault.pointer}={fault.detail}" for fault in faults)
        return problem_response(ServiceError(message, code="invalid", faults=faults), request.scope)

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        code = _CODES.get(error.status_code, "bad_request")
        message = error.detail if code in _TOLD_BY_US else f"{error.detail}: {request.url.path}"
        response = problem_response(ServiceError(message, code=code), request.scope)
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            response.headers["Allow"] = ", ".join(sorted(_methods(request.scope)))
        return response


def _methods(scope: Scope) -> set[str]:
    """What an address takes: each method has a route, and Starlette names the first one's alone."""
    routes = (route for route in scope["app"].routes if route.matches(scope)[0] != Match.NONE)
    return {method for route in routes for method in route.methods}


def _fault(found: dict[str, Any]) -> Fault:
    pointer = ".".join(map(str, found["loc"]))
    if found["type"] == "missing":  # its input is all that was given beside it
        return Fault(pointer, f"nothing: {words(found)}")
    more = "; /openapi.json tells what is" if found["type"] == "extra_forbidden" else ""
    return Fault(pointer, f"{str(found.get('input'))[:100]!r}: {words(found)}{more}")
