"""What goes over the wire: bodies and answers of the API, shared by service and client.

The client is installed without the rest: this imports no more than pydantic.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypedDict

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

from nearline.faults import Told
from nearline.records import Id, as_utc
from serving.answers import Answer, Asked, Context, Filled, ScoredItem
from serving.filters import Filters
from serving.reasons import ReasonCode, Retriever, Source

if TYPE_CHECKING:
    from nearline.experiments import Assigned

MOST_ITEMS = 200
MOST_SESSION_EVENTS = 500
MOST_USERS = 100
MOST_FILTERS = 50
MOST_CONTEXT = 10
MOST_EXCLUDED = 500
MOST_ROWS = 10_000
"""Events or items of one request: each costs more than the two bytes that the shortest takes."""

Limit = Annotated[int, Field(ge=1, le=MOST_ITEMS, description="Most items in the answer.")]
Price = Annotated[float, Field(allow_inf_nan=False)]
Value = Annotated[str, StringConstraints(max_length=256)]
Version = Annotated[
    str,
    StringConstraints(max_length=128, pattern=r"^[\w.-]+$"),
    Told("is no version of a release, as `nearline releases list` shows them"),
]
EventStatus = Literal["accepted", "duplicate", "refused"]

Figures = Annotated[
    dict[str, float],
    Field(
        description="A night's are its own, on the newest events before it learned them. Of an "
        "hour, `parent_…` is how well its parent foresaw the new events, `retention_…` how well "
        "it foresees earlier ones itself."
    ),
]

_ITEM_LIST: dict[str, Any] = {
    "request_id": "4f1c6a0e",
    "release": "20260102T12-hourly-1f3a9c02",
    "experiment": None,
    "arm": None,
    "source": "live",
    "reason": None,
    "reason_code": None,
    "filled": None,
    "items": [
        {
            "item_id": "50",
            "title": "Star Wars (1977)",
            "score": 0.82,
            "source": "encoder",
            "matches": True,
            "why": None,
        }
    ],
    "state_age_seconds": 4.2,
    "features": {"user_sequence": "2026-01-02T12:00:00Z"},
}


_RELEASE: dict[str, Any] = {
    "version": _ITEM_LIST["release"],
    "kind": "hourly",
    "parent": "20260102T11-hourly-7d21e0b4",
    "window_end": "2026-01-02T12:00:00Z",
    "promoted": True,
    "reasons": [],
    "metrics": {"parent_ndcg@10": 0.043, "retention_ndcg@10": 0.041},
}


def _example(**answer: Any) -> ConfigDict:
    """The configuration of an answer, with an example of it."""
    return ConfigDict(json_schema_extra={"examples": [answer]})


def _named(pair: str) -> str:
    name, colon, _ = pair.partition(":")
    if not name or not colon:
        raise ValueError("must be NAME:VALUE, as in color:red")
    return pair


NamedValue = Annotated[
    Value, AfterValidator(_named), Field(json_schema_extra={"pattern": "^[^:]+:"})
]


ContextValue = Annotated[
    str,
    StringConstraints(
        max_length=300, pattern=r"^(item_id|category|page|device):[^\x00-\x1f\x7f]{1,256}$"
    ),
    Told(
        "must be item_id:…, category:…, page:… or device:…, with up to 256 characters, none of "
        "control"
    ),
]


Words = Annotated[
    str,
    StringConstraints(min_length=1, max_length=500, pattern=r"\S"),
    Told("must have words, in up to 500 characters"),
]


class ListOptions(TypedDict, total=False):
    """How a list is wanted, as the client takes it; see ListQuery."""

    limit: int
    categories: Sequence[str]
    price_min: float
    price_max: float
    attributes: Mapping[str, Sequence[str]]
    exclude: Sequence[str]
    surface: str
    context: Mapping[str, str]
    explain: bool
    fill: bool
    log: bool


class ListQuery(BaseModel):
    """How a list is wanted, in the query of its address.

    Every kind of filter that is given must hold; of several values for one, any may.
    """

    model_config = ConfigDict(extra="forbid")

    limit: Limit = 10
    # No factories: FastAPI would look at their signatures in every request, for 0.3 ms.
    category: list[Id] = Field([], max_length=MOST_FILTERS, examples=[["noir"]])
    price_min: Price | None = Field(
        None, description="On the attribute `price`, in its unit.", examples=[5]
    )
    price_max: Price | None = Field(None, description="No less than `price_min`.", examples=[20])
    attribute: list[NamedValue] = Field(
        [],
        max_length=MOST_FILTERS,
        description="NAME:VALUE of an item's attribute, as in color:red or waterproof:true.",
        examples=[["color:red"]],
    )
    exclude: list[Id] = Field(
        [], max_length=MOST_EXCLUDED, description="Items to leave out.", examples=[["50", "181"]]
    )
    surface: Id | None = Field(
        None, description="Where the list is shown, such as home.", examples=["home"]
    )
    context: list[ContextValue] = Field(
        [],
        max_length=MOST_CONTEXT,
        description="NAME:VALUE of what is around the list: item_id, the item that the user looks "
        "at now, which lists for users and sessions take for the last touch; category, that of the "
        "page; page and device, kinds of these. All are logged with the list. Of several values "
        "for one name the last counts.",
        examples=[["item_id:50", "page:detail", "device:phone"]],
    )
    explain: bool = Field(False, description="Say of each item why it is there.")
    fill: bool = Field(
        True, description="Fill a list that is too short; what fills it is labelled."
    )
    log: bool = Field(
        True,
        description="Log the list as shown, for clicks and experiments. False: it is only looked "
        "at, by nobody whom it is made for.",
    )

    @field_validator("price_max")
    @classmethod
    def _is_a_range(cls, price_max: float | None, given: ValidationInfo) -> float | None:
        price_min = given.data.get("price_min")
        if price_max is not None and price_min is not None and price_max < price_min:
            raise ValueError(f"must be no less than price_min, which is {price_min:g}")
        return price_max

    def around(self) -> Context:
        """What is around the list."""
        return Context(**dict(pair.split(":", 1) for pair in self.context))

    def asked(self, list_id: str) -> Asked:
        """The same, as the recommender is asked for the list of that id."""
        values: dict[str, set[str]] = {}
        for pair in self.attribute:
            name, _, value = pair.partition(":")
            values.setdefault(name, set()).add(value)
        filters = Filters(
            categories=frozenset(self.category),
            price_min=self.price_min,
            price_max=self.price_max,
            attributes=frozenset((name, frozenset(texts)) for name, texts in values.items()),
        )
        return Asked(
            limit=self.limit,
            filters=filters,
            exclude=frozenset(self.exclude),
            explain=self.explain,
            fill=self.fill,
            surface=self.surface,
            context=self.around(),
            list_id=list_id,
        )


class SearchQuery(ListQuery):
    """What is looked for, and how the list is wanted."""

    q: Words = Field(
        description="Keywords; the beginning of a word will do.", examples=["star wars"]
    )
    user_id: Id | None = Field(
        None, description="Whose taste orders what is found.", examples=["796"]
    )


class OwnEvent(BaseModel):
    """An event of the user's own that speaks for an item."""

    item_id: str
    title: str | None
    event_type: str
    event_ts: datetime
    similarity: float = Field(description="Cosine of the two items' vectors, -1 to 1.")


class WhyItem(BaseModel):
    """Why an item is in the list."""

    scores: dict[Retriever, float] = Field(description="Score of each source that proposed it.")
    ranked: float | None = Field(None, description="The ranker's score, where it gave the order.")
    boost: float = Field(1, description="What its age made of the worth of its place; 1: nothing.")
    propensity: float = Field(
        1, description="The chance that lots gave it this place; 1: none was drawn."
    )
    because: list[OwnEvent] = Field(description="What the user touched that is most like it.")


class RankedItem(BaseModel):
    """One recommended item."""

    item_id: str
    title: str | None = Field(description="From the catalogue; null for an item without.")
    score: float = Field(description="Orders the items of one source in this answer.")
    source: Retriever = Field(
        description="What proposed the item; alike: its content is like that of the items touched "
        "last; content: the release does not know it yet, or it shares categories; promotion: the "
        "site put it at its place."
    )
    matches: bool = Field(description="False for an item that fills up a list against the filters.")
    why: WhyItem | None = Field(None, description="With `explain` only.")

    @classmethod
    def of(cls, item: ScoredItem) -> "RankedItem":
        """The item of an answer."""
        return cls(
            item_id=item.item_id,
            title=item.title,
            score=item.score,
            source=item.source,
            matches=item.matches,
            why=_why(item),
        )


def _why(item: ScoredItem) -> WhyItem | None:
    if item.why is None:
        return None
    ties = [
        OwnEvent(
            item_id=tie.item_id,
            title=tie.title,
            event_type=tie.event_type,
            event_ts=tie.event_ts,
            similarity=tie.similarity,
        )
        for tie in item.why.ties
    ]
    return WhyItem(
        scores=dict(item.why.scores),
        ranked=item.why.ranked,
        boost=item.why.boost,
        propensity=item.propensity,
        because=ties,
    )


class FilledUp(BaseModel):
    """The list was too short."""

    items: int = Field(description="So many items, the last ones, fill it up.")
    reason: str
    reason_code: ReasonCode


def _filled_up(filled: Filled) -> FilledUp:
    return FilledUp(items=filled.items, reason=filled.reason, reason_code=filled.reason.code)


class ItemList(BaseModel):
    """Items, best first, and where they come from."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ITEM_LIST]})

    request_id: str = Field(
        description="Send it back with the events that follow from this list. No other list has "
        "it; it begins with the X-Request-ID that was given, if one was."
    )
    release: str = Field(description="The release that answered, from the first line to the last.")
    experiment: str | None = Field(None, description="The experiment that the list is part of.")
    arm: str | None = Field(None, description="The user's arm in it.")
    source: Source = Field(
        description="live: sequence encoded now; stored: pushed vector of the same release; "
        "neighbours: item vectors; cooccurrence: what the same users touch; content: shared "
        "categories; search: the words asked for; trending; popular."
    )
    reason: str | None = Field(
        description="Why a fallback was taken, for people; null when none was."
    )
    reason_code: ReasonCode | None = Field(description="The same for programs.")
    filled: FilledUp | None = Field(description="How a list that was too short was filled up.")
    items: list[RankedItem]
    state_age_seconds: float | None = Field(
        description="Age of the user's newest event that this answer knows, or of the trending "
        "list; null where neither is behind it."
    )
    features: dict[str, datetime] = Field(
        description="Up to when each feature view was known that took part."
    )

    @classmethod
    def of(cls, answer: Answer, request_id: str, assigned: "Assigned | None" = None) -> Self:
        """The answer to a request, by the arm of an experiment where one was assigned."""
        filled = answer.filled
        return cls(
            request_id=request_id,
            release=answer.release,
            experiment=assigned.experiment if assigned else None,
            arm=assigned.arm if assigned else None,
            source=answer.source,
            reason=answer.reason,
            reason_code=answer.reason.code if answer.reason else None,
            filled=_filled_up(filled) if filled else None,
            items=[RankedItem.of(item) for item in answer.items],
            state_age_seconds=answer.state_age_seconds,
            features=dict(answer.features),
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
    event_ts: Annotated[datetime, AfterValidator(as_utc)] | None = Field(
        None, description="ISO 8601, UTC without a zone; default: just now."
    )
    value: float | None = Field(
        None, allow_inf_nan=False, description="As in an event: stars, a price, a share."
    )


class SessionRequest(ListQuery):
    """What is known of an anonymous visitor, and how the list is wanted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"events": [{"item_id": "50"}, {"item_id": "181"}], "limit": 5}]
        }
    )

    events: list[SessionEventIn] = Field(max_length=MOST_SESSION_EVENTS)


class BatchRequest(ListQuery):
    """Whose lists are wanted, and how."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_ids": ["196", "796"], "limit": 5}]}
    )

    user_ids: list[Id] = Field(min_length=1, max_length=MOST_USERS)


class UserItemList(ItemList):
    """The list of one user of a batch; its `request_id` is its own."""

    user_id: str


class Batch(BaseModel):
    """A list for each user, in the order asked for, all from one release but for experiments."""

    model_config = _example(
        request_id="4f1c6a0e",
        lists=[_ITEM_LIST | {"request_id": "4f1c6a0e.0", "user_id": "196"}],
    )

    request_id: str
    lists: list[UserItemList]


class EventReceipt(BaseModel):
    """What became of one event."""

    event_id: str | None
    status: EventStatus
    reason: str | None = Field(description="Why it was refused; else null.")


class EventsAnswer(BaseModel):
    """What became of the events of a request, in its order. Accepted events are on disk."""

    model_config = _example(
        request_id="4f1c6a0e",
        accepted=1,
        duplicate=0,
        refused=0,
        events=[{"event_id": "7b1d", "status": "accepted", "reason": None}],
    )

    request_id: str
    accepted: int
    duplicate: int
    refused: int
    events: list[EventReceipt]


class ItemReceiptOut(BaseModel):
    """What became of one item."""

    item_id: str | None
    reason: str | None = Field(description="Why it was refused; null when it was accepted.")


class ItemsAnswer(BaseModel):
    """What became of the items of a request, in its order. Accepted items are on disk."""

    model_config = _example(
        request_id="4f1c6a0e", accepted=1, refused=0, items=[{"item_id": "50", "reason": None}]
    )

    request_id: str
    accepted: int
    refused: int
    items: list[ItemReceiptOut]


_STANDS_IN = Field(
    None,
    description="The active release, where it cannot be loaded and this one answers in its stead.",
)


class ReleaseInfo(BaseModel):
    """The release that answers now."""

    model_config = _example(
        **_RELEASE,
        base="20260102T00-nightly-7d21e0b4",
        window_start="2026-01-02T11:00:00Z",
        baselines={},
        lineage={"feature_service": "serving_v1"},
        encoder="full",
        items=1682,
        recommendable=1680,
    )

    version: str
    kind: Literal["nightly", "hourly"]
    parent: str | None
    base: str | None
    window_start: datetime
    window_end: datetime
    promoted: bool
    reasons: list[str]
    metrics: Figures
    baselines: dict[str, dict[str, float]]
    lineage: dict[str, Any]
    encoder: Literal["full", "compressed"]
    items: int = Field(description="Items that the release knows.")
    recommendable: int = Field(description="Of these, available in the catalogue.")
    stands_in_for: str | None = _STANDS_IN


class ReleaseLine(BaseModel):
    """One release of the store."""

    version: str
    kind: Literal["nightly", "hourly"]
    parent: str | None
    window_end: datetime
    promoted: bool = Field(description="Whether the gate let it pass.")
    reasons: list[str]
    metrics: Figures
    active: bool = Field(description="Whether the pointer names it.")


class ReleaseList(BaseModel):
    """The releases of the store, newest first."""

    model_config = _example(releases=[_RELEASE | {"active": True}])

    releases: list[ReleaseLine]


class Promotion(BaseModel):
    """Which release is to go live."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"version": _ITEM_LIST["release"]}]}
    )

    version: Version


class Rollback(BaseModel):
    """Which release is to be gone back to; null: to the one before."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"version": _ITEM_LIST["release"]}, {}]}
    )

    version: Version | None = None


class ReleaseMoved(BaseModel):
    """Where the pointer is now. Every worker answers from that release within seconds."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "request_id": "4f1c6a0e",
                    "active": "20260102T12-hourly-1f3a9c02",
                    "before": "20260102T11-hourly-7d21e0b4",
                }
            ]
        }
    )

    request_id: str
    active: str
    before: str | None = Field(description="What a rollback would return to.")


class KnownEvent(BaseModel):
    """One event of a user's history."""

    item_id: str
    title: str | None
    event_type: str
    event_ts: datetime
    value: float = Field(description="0 where the event had none.")


class KnownVector(BaseModel):
    """The user's vector in the online store."""

    release: str
    ts: datetime = Field(description="It knows the events before this time.")
    used: bool = Field(description="Whether it is of the active release and nothing came since.")


class KnownFeatures(BaseModel):
    """The row of a feature view."""

    ts: datetime
    values: dict[str, Any]


class UserKnown(BaseModel):
    """What is known of a user now."""

    model_config = _example(
        user_id="796",
        events=[
            {
                "item_id": "50",
                "title": "Star Wars (1977)",
                "event_type": "play",
                "event_ts": "2026-01-02T12:00:00Z",
                "value": 0.9,
            }
        ],
        live_events=1,
        vector={"release": _RELEASE["version"], "ts": "2026-01-02T11:30:00Z", "used": False},
        features={"user_activity": {"ts": "2026-01-02T12:00:00Z", "values": {"events_24h": 7}}},
        reason=None,
        reason_code=None,
    )

    user_id: str
    events: list[KnownEvent] = Field(description="The newest events, newest first.")
    live_events: int = Field(description="Of these and older ones, accepted in the last hours.")
    vector: KnownVector | None
    features: dict[str, KnownFeatures] = Field(description="Feature view → its row.")
    reason: str | None = Field(description="Why the online store has no part in this; else null.")
    reason_code: ReasonCode | None = Field(description="The same for programs.")


class UserForgotten(BaseModel):
    """A user is forgotten; what is stored is about to be removed."""

    model_config = _example(
        request_id="4f1c6a0e", request="9c2e51d0", forgotten_before="2026-01-02T12:00:00Z"
    )

    request_id: str
    request: str = Field(description="Names the receipt of the removal, to come in HOME/receipts.")
    forgotten_before: datetime = Field(description="What happened from then on is kept.")


class Health(BaseModel):
    """Alive, and ready when there is a release to answer from."""

    model_config = _example(status="ready", release=_RELEASE["version"])

    status: Literal["ok", "ready"]
    release: str | None
    stands_in_for: str | None = _STANDS_IN


class WrongField(BaseModel):
    """One argument or field that is not what it must be."""

    pointer: str = Field(description="Where, as in query.limit or body.events.0.item_id.")
    detail: str


class Problem(BaseModel):
    """What every request gets that is not answered: a problem of RFC 9457."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:nearline:problem:unknown_item",
                    "title": "No such item",
                    "status": 404,
                    "detail": "no item 'x' in the catalogue or in 20260102T12-hourly-1f3a9c02",
                    "instance": "/v1/items/x/similar",
                    "code": "unknown_item",
                    "request_id": "4f1c6a0e",
                    "errors": [],
                }
            ]
        }
    )

    type: str = Field(description="urn:nearline:problem: and the code.")
    title: str = Field(description="The same for all problems of the type.")
    status: int
    detail: str = Field(description="What was wrong, with which value, and what to do.")
    instance: str = Field(description="The path that was asked for.")
    code: str = Field(description="A code of serving/errors.py.")
    request_id: str
    errors: list[WrongField] = Field(default_factory=list)
