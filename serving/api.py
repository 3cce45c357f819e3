"""The HTTP API: JSON in and out, every error in one shape (serving/errors.py).

| request | answer |
|---|---|
| `GET /v1/users/{user_id}/recommendations?limit=10` | ItemList |
| `POST /v1/sessions/recommendations` | SessionRequest → SessionItemList |
| `GET /v1/items/{item_id}/similar?limit=10` | ItemList |
| `GET /v1/trending?limit=10` | ItemList |
| `POST /v1/events` | one event or a list → EventsAnswer |
| `GET /v1/release` | ReleaseInfo |
| `GET /healthz`, `GET /readyz` | Health |
| `GET /metrics` | figures for Prometheus |

`POST /v1/events` with one event answers 200, or 422 `event_refused`. With a list it judges each
event by itself: 200 when none was refused, 207 when some were; the others are kept all the same.
Sending events again changes nothing: they are known by their ids.
"""

import ipaddress
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from nearline import __version__
from nearline.errors import ConfigError, NotReady
from nearline.schema import Id
from nearline.settings import settings
from serving.errors import STATUS, ServiceError, ServiceNotReady
from serving.middleware import BodyLimit, Gate, error_response
from serving.recommender import Answer, SessionEvent
from serving.schema import (
    MOST_ITEMS,
    ErrorAnswer,
    EventReceipt,
    EventsAnswer,
    Health,
    IgnoredEvent,
    ItemList,
    RankedItem,
    ReleaseInfo,
    SessionItemList,
    SessionRequest,
)
from serving.service import Service

_Limit = Annotated[int, Query(ge=1, le=MOST_ITEMS, description="Most items in the answer.")]
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer} for status in sorted(set(STATUS.values()))
}


def utc_now() -> datetime:
    """The clock of the API, and the only one: everything below takes `now` from it."""
    return datetime.now(UTC)


def check_exposure(host: str, api_key: str) -> None:
    """Raise ConfigError for an address beyond this machine without a key."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not api_key:
        raise ConfigError(
            f"refusing to listen on {host} without a key: set NEARLINE_API_KEY, or listen on "
            "127.0.0.1"
        )


def create_app(
    *, service: Service | None = None, clock: Callable[[], datetime] = utc_now
) -> FastAPI:
    """The app of the settings, or of a given service; it starts and closes the service."""
    config, service = settings(), service or Service.open()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start(clock())
        yield
        service.close()

    app = FastAPI(
        title="Nearline",
        version=__version__,
        lifespan=lifespan,
        responses=_ERRORS,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(BodyLimit, max_bytes=config.max_body_bytes)
    app.add_middleware(Gate, metrics=service.metrics, api_key=config.api_key)
    _add_error_handlers(app)
    _add_lists(app, service, clock)
    _add_events(app, service, clock)
    _add_operations(app, service)
    return app


def _add_lists(app: FastAPI, service: Service, clock: Callable[[], datetime]) -> None:
    recommender, pin = service.recommender, service.active.pin

    @app.get("/v1/users/{user_id:path}/recommendations")
    def user_recommendations(request: Request, user_id: Id, limit: _Limit = 10) -> ItemList:
        answer = recommender.for_user(pin(), user_id, limit=limit, now=clock())
        return _item_list(service, request, answer)

    @app.post("/v1/sessions/recommendations")
    def session_recommendations(request: Request, body: SessionRequest) -> SessionItemList:
        events = [SessionEvent(e.item_id, e.event_type, e.event_ts) for e in body.events]
        answer = recommender.for_session(pin(), events, limit=body.limit, now=clock())
        ignored = [IgnoredEvent(item_id=i.item_id, reason=i.reason) for i in answer.ignored]
        listed = _item_list(service, request, answer)
        return SessionItemList(**dict(listed), ignored=ignored)

    @app.get("/v1/items/{item_id:path}/similar")
    def similar_items(request: Request, item_id: Id, limit: _Limit = 10) -> ItemList:
        answer = recommender.similar(pin(), item_id, limit=limit, now=clock())
        return _item_list(service, request, answer)

    @app.get("/v1/trending")
    def trending(request: Request, limit: _Limit = 10) -> ItemList:
        return _item_list(service, request, recommender.trending(pin(), limit=limit, now=clock()))


def _add_events(app: FastAPI, service: Service, clock: Callable[[], datetime]) -> None:
    @app.post("/v1/events", responses={207: {"model": EventsAnswer}})
    def events(
        request: Request, response: Response, posted: Annotated[Any, Depends(_json_body)]
    ) -> EventsAnswer:
        rows = posted if isinstance(posted, list) else [posted]
        if not rows:
            raise ServiceError("the list holds no event", code="invalid")
        receipts = service.take(rows, clock=clock)
        counts = dict.fromkeys(("accepted", "duplicate", "refused"), 0)
        for receipt in receipts:
            counts[receipt.status] += 1
            service.metrics.events.labels(receipt.status).inc()
        if counts["refused"] and not isinstance(posted, list):
            raise ServiceError(f"event refused: {receipts[0].reason}", code="event_refused")
        response.status_code = 207 if counts["refused"] else 200
        listed = [
            EventReceipt(event_id=r.event_id, status=r.status, reason=r.reason) for r in receipts
        ]
        return EventsAnswer(request_id=request.state.request_id, events=listed, **counts)


async def _json_body(request: Request) -> Any:
    """The body as JSON gave it; the journal judges what is in it.

    Only application/json: a page of another site may post plain text to an address of ours
    without asking, but not this type.
    """
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json":
        raise ServiceError(
            f"content type {media_type!r}: send application/json", code="unsupported_media_type"
        )
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise ServiceError(f"the body is no JSON: {error}", code="bad_request") from error


def _add_operations(app: FastAPI, service: Service) -> None:
    active, metrics = service.active, service.metrics

    @app.get("/v1/release")
    def release() -> ReleaseInfo:
        loaded = active.pin().release
        return ReleaseInfo(
            **loaded.manifest.model_dump(exclude={"files"}),
            encoder=loaded.encoder,
            items=len(loaded.matrix),
            recommendable=int(loaded.available.sum()),
        )

    @app.get("/healthz")
    def alive() -> Health:
        return Health(status="ok", release=None)

    @app.get("/readyz")
    def ready() -> Health:
        return Health(status="ready", release=active.pin().release.version)

    @app.get("/metrics", response_class=Response, include_in_schema=False)
    def figures() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _item_list(service: Service, request: Request, answer: Answer) -> ItemList:
    endpoint = request.scope["route"].path
    service.metrics.answers.labels(endpoint, answer.source).inc()
    if answer.reason is not None:
        service.metrics.fallbacks.labels(answer.reason.name.lower()).inc()
    return ItemList(
        request_id=request.state.request_id,
        release=answer.release,
        source=answer.source,
        reason=answer.reason,
        items=[RankedItem(item_id=i.item_id, title=i.title, score=i.score) for i in answer.items],
        state_age_seconds=answer.state_age_seconds,
    )


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ServiceError)
    def of_ours(_: Request, error: ServiceError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(NotReady)
    def not_ready(_: Request, error: NotReady) -> JSONResponse:
        return error_response(ServiceNotReady(str(error)))

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(ServiceError(_explain(error), code="invalid"))

    @app.exception_handler(HTTPException)
    def of_http(request: Request, error: HTTPException) -> JSONResponse:
        code = _CODES.get(error.status_code, "bad_request")
        message = error.detail if code == "too_large" else f"{error.detail}: {request.url.path}"
        return error_response(ServiceError(message, code=code))


def _explain(error: RequestValidationError) -> str:
    lines = [
        f"{'.'.join(map(str, found['loc']))}={str(found.get('input'))[:100]!r}: {found['msg']}"
        for found in error.errors()
    ]
    return "; ".join(lines[:10])
