"""What users do comes in here."""

import json
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response

from nearline.records import Event
from serving.description import one_or_many
from serving.errors import ServiceError
from serving.schema import MOST_ROWS, EventReceipt, EventsAnswer
from serving.service import Service


async def json_body(request: Request) -> Any:
    """The body as JSON gave it; who takes it judges what is in it.

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


_EXAMPLE = {
    "event_id": "7b1d",
    "user_id": "42",
    "item_id": "50",
    "event_type": "play",
    "event_ts": "2026-01-02T12:00:00Z",
    "value": 0.9,
    "request_id": "4f1c6a0e",
}

Posted = Annotated[Any, Depends(json_body)]


def rows_of(posted: Any, what: str) -> list[Any]:
    """What was posted, one or a list, as a list. Raises ServiceError for none, or too many."""
    rows = posted if isinstance(posted, list) else [posted]
    if not rows:
        raise ServiceError(f"the list holds no {what}", code="invalid")
    if len(rows) > MOST_ROWS:
        raise ServiceError(
            f"the list holds {len(rows)} {what}s: send at most {MOST_ROWS} at once",
            code="too_large",
        )
    return rows


def add_events(app: FastAPI, service: Service) -> None:
    """Add the address that takes events."""

    @app.post(
        "/v1/events",
        responses={207: {"model": EventsAnswer}},
        openapi_extra=one_or_many(Event, _EXAMPLE),
    )
    def events(request: Request, response: Response, posted: Posted) -> EventsAnswer:
        """Take in one event or a list; accepted ones are on disk when this is answered."""
        receipts = service.take(rows_of(posted, "event"))
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
