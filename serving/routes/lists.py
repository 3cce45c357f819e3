"""Lists of items: for a user, for a session, like an item, for all. Logged as shown, if asked."""

from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import Annotated

from fastapi import FastAPI, Query, Request, Response

from nearline.experiments import Assigned
from nearline.identity import stored_id
from nearline.intake import Impression
from serving.access import Access
from serving.answers import Answer, SessionEvent
from serving.bodies import BODY_CODES, AsJson, sent
from serving.kept import Kept
from serving.problems import errors
from serving.reasons import IN_TROUBLE
from serving.schema import (
    Batch,
    BatchRequest,
    IgnoredEvent,
    ItemList,
    ListQuery,
    SearchQuery,
    SessionItemList,
    SessionRequest,
    UserItemList,
)
from serving.segments import SegmentId
from serving.service import Service

Asked = Annotated[ListQuery, Query()]

_TAGS: list[str | Enum] = ["lists"]
_ASKED = errors("invalid", "not_ready")
_ASKED_BY_BODY = errors(*BODY_CODES, "invalid", "not_ready")


def add_lists(
    app: FastAPI, service: Service, access: Access, clock: Callable[[], datetime]
) -> None:
    """Add the addresses that answer with a list of items."""
    _add_own(app, service, access, clock)
    _add_others(app, service, clock)


def _add_own(app: FastAPI, service: Service, access: Access, clock: Callable[[], datetime]) -> None:
    """Lists that are made for whoever they are shown to."""
    recommender = service.recommender

    @app.get(
        "/v1/users/{user_id:segment}/recommendations",
        response_model=ItemList,
        responses=_ASKED,
        tags=_TAGS,
    )
    def user_recommendations(request: Request, user_id: SegmentId, asked: Asked) -> Response:
        """What a user is recommended now; a stranger gets what is trending."""
        now, user_id = clock(), stored_id(user_id)
        service.catch_up(now)
        basis = service.basis(user_id, asked.surface, now)
        choice = basis.choice
        state = recommender.states([user_id], now=now)[user_id]
        answer = service.list_for(choice, state, asked.asked(list_id(request)), now=now)
        shown = shown_for(request, answer, "user", asked, user_id=user_id, by=choice.assigned)
        listed = told(service, request, asked, answer, shown, now)
        if asked.log and answer.reason not in IN_TROUBLE and answer.propensities is None:
            route = request.scope["route"]
            kept = Kept.of(listed, answer, shown, made=now, basis=basis, route=route)
            service.kept.keep(request.scope, kept)
        return sent(listed)

    @app.post(
        "/v1/recommendations",
        response_model=Batch,
        responses=_ASKED_BY_BODY,
        tags=_TAGS,
        dependencies=[AsJson],
    )
    def recommendations_of(request: Request, body: BatchRequest) -> Response:
        """What each of some users is recommended now, such as for a mailing.

        To the rate of a key each list counts as a request: a batch that is let in takes what is
        there and what comes in next, and the key's next request waits for it.
        """
        now, lists = clock(), []
        pinned = service.pin(now)
        access.count_lists(request.state.caller, len(body.user_ids))
        ids = [stored_id(user_id) for user_id in body.user_ids]
        states = recommender.states(ids, now=now)
        for place, (user_id, stored) in enumerate(zip(body.user_ids, ids, strict=True)):
            choice = service.trials.choose(stored, body.surface, pinned)
            asked = body.asked(list_id(request, place))
            answer = service.list_for(choice, states[stored], asked, now=now)
            by = choice.assigned
            shown = shown_for(request, answer, "user", body, user_id=stored, place=place, by=by)
            listed = told(service, request, body, answer, shown, now)
            lists.append(UserItemList(**dict(listed), user_id=user_id))
        return sent(Batch(request_id=request.state.request_id, lists=lists))

    @app.post(
        "/v1/sessions/recommendations",
        response_model=SessionItemList,
        responses=_ASKED_BY_BODY,
        tags=_TAGS,
        dependencies=[AsJson],
    )
    def session_recommendations(request: Request, body: SessionRequest) -> Response:
        """What a visitor is recommended of whom only these events are known."""
        now = clock()
        events = [SessionEvent(e.item_id, e.event_type, e.event_ts, e.value) for e in body.events]
        pinned, asked = service.pin(now), body.asked(list_id(request))
        answer = recommender.for_session(pinned, events, asked, now=now)
        shown = shown_for(request, answer, "session", body)
        listed = told(service, request, body, answer, shown, now)
        ignored = [IgnoredEvent(item_id=i.item_id, reason=i.reason) for i in answer.ignored]
        return sent(SessionItemList(**dict(listed), ignored=ignored))


def _add_others(app: FastAPI, service: Service, clock: Callable[[], datetime]) -> None:
    """Lists around an item, words, or the site."""
    recommender = service.recommender

    @app.get(
        "/v1/items/{item_id:segment}/similar",
        response_model=ItemList,
        responses=_ASKED | errors("unknown_item"),
        tags=_TAGS,
    )
    def similar_items(request: Request, item_id: SegmentId, asked: Asked) -> Response:
        """Items like an item."""
        now, question = clock(), asked.asked(list_id(request))
        answer = recommender.similar(service.pin(now), item_id, question, now=now)
        shown = shown_for(request, answer, "similar", asked, item_id=item_id)
        return sent(told(service, request, asked, answer, shown, now))

    @app.get("/v1/search", response_model=ItemList, responses=_ASKED, tags=_TAGS)
    def search(request: Request, asked: Annotated[SearchQuery, Query()]) -> Response:
        """Items by keywords of their titles, categories and texts, to the taste of a user."""
        now, question = clock(), asked.asked(list_id(request))
        user_id = None if asked.user_id is None else stored_id(asked.user_id)
        answer = recommender.search(service.pin(now), asked.q, user_id, question, now=now)
        shown = shown_for(request, answer, "search", asked, user_id=user_id)
        return sent(told(service, request, asked, answer, shown, now))

    @app.get("/v1/trending", response_model=ItemList, responses=_ASKED, tags=_TAGS)
    def trending(request: Request, asked: Asked) -> Response:
        """What the whole site touches now."""
        now = clock()
        answer = recommender.trending(service.pin(now), asked.asked(list_id(request)), now=now)
        shown = shown_for(request, answer, "trending", asked)
        return sent(told(service, request, asked, answer, shown, now))


def told(
    service: Service,
    request: Request,
    asked: ListQuery,
    answer: Answer,
    shown: Impression,
    now: datetime,
) -> ItemList:
    """The answer to a request that came `now`, counted, and logged as shown where asked for."""
    service.metrics.answered(request.scope["route"].path_format, answer)
    if asked.log:
        service.shown(shown, asked=now)
    by = Assigned(shown.experiment, shown.arm) if shown.experiment and shown.arm else None
    return ItemList.of(answer, shown.request_id, by)


def list_id(request: Request, place: int | None = None) -> str:
    """A list's own id: that of its request, with its `place` where a request asks for several."""
    own: str = request.state.list_id
    return own if place is None else f"{own}.{place}"


def shown_for(
    request: Request,
    answer: Answer,
    kind: str,
    asked: ListQuery,
    *,
    user_id: str | None = None,
    item_id: str | None = None,
    place: int | None = None,
    by: Assigned | None = None,
) -> Impression:
    """The list as the log has it, by the arm of an experiment where one was assigned."""
    around = asked.around()
    return Impression(
        request_id=list_id(request, place),
        kind=kind,
        release=answer.release,
        source=answer.source,
        reason=answer.reason,
        item_ids=[item.item_id for item in answer.items],
        scores=[item.score for item in answer.items],
        sources=[item.source for item in answer.items],
        propensities=answer.propensities,
        user_id=user_id,
        surface=asked.surface,
        item_id=item_id or around.item_id,
        category=around.category,
        page=around.page,
        device=around.device,
        experiment=by.experiment if by else None,
        arm=by.arm if by else None,
    )
