"""What users do comes in here."""

from fastapi import FastAPI, Request, Response

from nearline.records import Event
from serving.bodies import BODY_CODES, Posted, rows_of, sent
from serving.description import one_or_many
from serving.errors import ServiceError
from serving.problems import errors
from serving.schema import EventReceipt, EventsAnswer
from serving.service import Service

_EXAMPLE = {
    "event_id": "7b1d",
    "user_id": "42",
    "item_id": "50",
    "event_type": "play",
    "event_ts": "2026-01-02T12:00:00Z",
    "value": 0.9,
    "request_id": "4f1c6a0e",
}


def add_events(app: FastAPI, service: Service) -> None:
    """Add the address that takes events."""

    @app.post(
        "/v1/events",
        response_model=EventsAnswer,
        tags=["events"],
        responses={
            207: {"model": EventsAnswer, "description": "Some events were refused"},
            **errors(*BODY_CODES, "invalid", "event_refused", "not_kept"),
        },
        openapi_extra=one_or_many(Event, _EXAMPLE),
    )
    def events(request: Request, posted: Posted) -> Response:
        """Take in one event or a list; accepted ones are on disk when this is answered."""
        receipts = service.take(rows_of(posted, "event"))
        counts = dict.fromkeys(("accepted", "duplicate", "refused"), 0)
        for receipt in receipts:
            counts[receipt.status] += 1
        for status, count in counts.items():
            if count:
                service.metrics.events.labels(status).inc(count)
        if counts["refused"] and not isinstance(posted, list):
            raise ServiceError(f"event refused: {receipts[0].reason}", code="event_refused")
        listed = [
            EventReceipt(event_id=r.event_id, status=r.status, reason=r.reason) for r in receipts
        ]
        answer = EventsAnswer(request_id=request.state.request_id, events=listed, **counts)
        return sent(answer, status=207 if counts["refused"] else 200)
