"""Lists of items: for a user, for a session, like an item, for all."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from fastapi import FastAPI, Query, Request

from nearline.schema import Id
from serving.answers import Answer, SessionEvent
from serving.schema import IgnoredEvent, ItemList, ListQuery, SessionItemList, SessionRequest
from serving.service import Service

Asked = Annotated[ListQuery, Query()]


def add_lists(app: FastAPI, service: Service, clock: Callable[[], datetime]) -> None:
    """Add the addresses that answer with a list of items."""
    recommender, pin = service.recommender, service.active.pin

    @app.get("/v1/users/{user_id:path}/recommendations")
    def user_recommendations(request: Request, user_id: Id, asked: Asked) -> ItemList:
        """What a user is recommended now; a stranger gets what is trending."""
        answer = recommender.for_user(pin(), user_id, asked.asked(), now=clock())
        return _told(service, request, answer)

    @app.post("/v1/sessions/recommendations")
    def session_recommendations(request: Request, body: SessionRequest) -> SessionItemList:
        """What a visitor is recommended of whom only these events are known."""
        events = [SessionEvent(e.item_id, e.event_type, e.event_ts) for e in body.events]
        answer = recommender.for_session(pin(), events, body.asked(), now=clock())
        told = _told(service, request, answer)
        ignored = [IgnoredEvent(item_id=i.item_id, reason=i.reason) for i in answer.ignored]
        return SessionItemList(**dict(told), ignored=ignored)

    @app.get("/v1/items/{item_id:path}/similar")
    def similar_items(request: Request, item_id: Id, asked: Asked) -> ItemList:
        """Items like an item."""
        answer = recommender.similar(pin(), item_id, asked.asked(), now=clock())
        return _told(service, request, answer)

    @app.get("/v1/trending")
    def trending(request: Request, asked: Asked) -> ItemList:
        """What the whole site touches now."""
        answer = recommender.trending(pin(), asked.asked(), now=clock())
        return _told(service, request, answer)


def _told(service: Service, request: Request, answer: Answer) -> ItemList:
    """The answer for the wire, counted."""
    service.metrics.answered(request.scope["route"].path, answer)
    return ItemList.of(answer, request.state.request_id)
