"""What goes over the wire: bodies and answers of the API, shared by service and client."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from nearline.schema import Id
from serving.reasons import Source

MOST_ITEMS = 200
MOST_SESSION_EVENTS = 500

Limit = Annotated[int, Field(ge=1, le=MOST_ITEMS, description="Most items in the answer.")]
EventStatus = Literal["accepted", "duplicate", "refused"]


def _as_utc(ts: datetime) -> datetime:
    return ts.replace(tzinfo=UTC) if ts.tzinfo is None else ts.astimezone(UTC)


class RankedItem(BaseModel):
    """One recommended item."""

    item_id: str
    title: str | None = Field(description="From the catalogue; null for an item that is not there.")
    score: float = Field(description="Orders this answer; scores of other sources do not compare.")


class ItemList(BaseModel):
    """Items, best first, and where they come from."""

    request_id: str = Field(description="Send it back with the events that follow from this list.")
    release: str = Field(description="The release that answered, from the first line to the last.")
    source: Source = Field(
        description="live: sequence encoded now; stored: pushed vector of the same release; "
        "neighbours: item vectors; content: shared categories; trending; popular."
    )
    reason: str | None = Field(description="Why a fallback was taken; null when none was.")
    items: list[RankedItem]
    state_age_seconds: float | None = Field(
        description="Age of the user's newest event that this answer knows, or of the trending "
        "list; null where neither is behind it."
    )


class IgnoredEvent(BaseModel):
    """An event of a session that could not be used."""

    item_id: str
    reason: str


class SessionItemList(ItemList):
    """The answer to a session, with the events that could not be used."""

    ignored: list[IgnoredEvent] = Field(default_factory=list)


class SessionEventIn(BaseModel):
    """One thing that an anonymous visitor did."""

    model_config = ConfigDict(extra="forbid")

    item_id: Id
    event_type: Id | None = Field(
        None, description="Default: the first sign of interest of the funnel."
    )
    event_ts: Annotated[datetime, AfterValidator(_as_utc)] | None = Field(
        None, description="ISO 8601, UTC without a zone; default: just now."
    )


class SessionRequest(BaseModel):
    """What is known of an anonymous visitor."""

    model_config = ConfigDict(extra="forbid")

    events: list[SessionEventIn] = Field(max_length=MOST_SESSION_EVENTS)
    limit: Limit = 10


class EventReceipt(BaseModel):
    """What became of one event."""

    event_id: str | None
    status: EventStatus
    reason: str | None = Field(description="Why it was refused; else null.")


class EventsAnswer(BaseModel):
    """What became of the events of a request, in its order. Accepted events are on disk."""

    request_id: str
    accepted: int
    duplicate: int
    refused: int
    events: list[EventReceipt]


class ReleaseInfo(BaseModel):
    """The release that answers now."""

    version: str
    kind: Literal["nightly", "hourly"]
    parent: str | None
    base: str | None
    window_start: datetime
    window_end: datetime
    promoted: bool
    reasons: list[str]
    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]]
    lineage: dict[str, Any]
    encoder: Literal["full", "compressed"]
    items: int = Field(description="Items that the release knows.")
    recommendable: int = Field(description="Of these, available in the catalogue.")


class Health(BaseModel):
    """Alive, and ready when there is a release to answer from."""

    status: Literal["ok", "ready"]
    release: str | None


class ErrorDetail(BaseModel):
    """An error: a code of serving/errors.py, and what was wrong, with which value, what to do."""

    code: str
    message: str


class ErrorAnswer(BaseModel):
    """What every request gets that is not answered."""

    error: ErrorDetail
