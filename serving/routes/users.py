"""What is known of a user, and the wish that nothing be."""

from collections.abc import Callable
from datetime import datetime

from fastapi import FastAPI, Request

from nearline.identity import stored_id
from nearline.sequence import at_microseconds
from serving.errors import UnknownUser
from serving.features import Profile, StoreFailed, StoreLate
from serving.problems import errors
from serving.schema import KnownEvent, KnownFeatures, KnownVector, UserForgotten, UserKnown
from serving.segments import SegmentId
from serving.service import Service
from serving.users import UserState


def add_users(app: FastAPI, service: Service, clock: Callable[[], datetime]) -> None:
    """Add the address of what is known of a user."""

    @app.get(
        "/v1/users/{user_id:segment}", responses=errors("invalid", "unknown_user"), tags=["users"]
    )
    def known(user_id: SegmentId) -> UserKnown:
        """The history, the vector and the features that answers to a user are made from."""
        service.catch_up(clock())
        stored = stored_id(user_id)
        state, profile = service.users.state(stored), _profile(service, stored)
        live = service.live.of(stored).events
        if not (state.history.item_ids or live or profile or state.vector or state.trouble):
            raise UnknownUser(f"nothing is known of user {user_id!r}")
        return UserKnown(
            user_id=user_id,
            events=_events(service, state),
            live_events=len(live),
            vector=_vector(service, state),
            features={
                view: KnownFeatures(ts=row.ts, values=row.values) for view, row in profile.items()
            },
            reason=state.trouble,
            reason_code=state.trouble.code if state.trouble else None,
        )

    @app.delete(
        "/v1/users/{user_id:segment}",
        status_code=202,
        responses=errors("invalid", "not_kept"),
        tags=["users"],
    )
    def forget(request: Request, user_id: SegmentId) -> UserForgotten:
        """Forget a user: at once in every answer; what is stored goes with the next housekeeping.

        Nothing that the user did before comes back. Asking again before it is removed is one
        request; what was done in between is forgotten too.
        """
        wish = service.forget(user_id, clock)
        return UserForgotten(
            request_id=request.state.request_id, request=wish.request, forgotten_before=wish.since
        )


def _profile(service: Service, user_id: str) -> dict[str, Profile]:
    """The user's features; none while the store fails, which the state of the user tells."""
    try:
        return service.users.profile(user_id)
    except (StoreLate, StoreFailed):
        return {}


def _events(service: Service, state: UserState) -> list[KnownEvent]:
    catalogue = service.active.catalogue
    return [
        KnownEvent(
            item_id=item_id,
            title=catalogue.title(item_id),
            event_type=event_type,
            event_ts=at_microseconds(ts_us),
            value=value,
        )
        for item_id, event_type, ts_us, value in reversed(list(zip(*state.history, strict=True)))
    ]


def _vector(service: Service, state: UserState) -> KnownVector | None:
    if state.vector is None:
        return None
    used = state.stored is not None and state.stored.release == service.active.version
    return KnownVector(release=state.vector.release, ts=state.vector.ts, used=used)
