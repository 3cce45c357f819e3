"""What is asked of the recommender, and what it answers. Nothing here knows HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from serving.filters import ANY, Filters
from serving.reasons import Reason, Retriever, Source


@dataclass(frozen=True)
class Asked:
    """How a list is wanted. `fill`: a list that the filters left too short is filled up.

    `category_cap` stands in for the setting of that name. Not `ranked`: in the order of the fusion.
    """

    limit: int = 10
    filters: Filters = ANY
    exclude: frozenset[str] = frozenset()
    explain: bool = False
    fill: bool = True
    category_cap: float | None = None
    ranked: bool = True


@dataclass(frozen=True)
class Tie:
    """An event of the user's own that speaks for an item, and the cosine of the two items."""

    item_id: str
    title: str | None
    event_type: str
    event_ts: datetime
    similarity: float


@dataclass(frozen=True)
class Why:
    """Why an item is in a list: the score of each source, and the user's events it is tied to.

    `ranked` is the ranker's score, where it ordered the list.
    """

    scores: Mapping[Retriever, float]
    ties: tuple[Tie, ...] = ()
    ranked: float | None = None


@dataclass(frozen=True)
class ScoredItem:
    """A recommended item. Scores order one answer; those of different sources do not compare.

    `matches` is False for an item that fills up a list which the filters left too short.
    """

    item_id: str
    title: str | None
    score: float
    source: Retriever
    matches: bool = True
    why: Why | None = None


@dataclass(frozen=True)
class Filled:
    """How a list that was too short was filled up: with so many items, and why."""

    items: int
    reason: Reason


@dataclass(frozen=True)
class Ignored:
    """An event of a session that could not be used, and why."""

    item_id: str
    reason: str


@dataclass(frozen=True)
class Answer:
    """A list, where it came from, and how old the newest thing is that it knows of the user.

    `features` says up to when each feature view was known that took part.
    """

    release: str
    source: Source
    items: list[ScoredItem]
    reason: Reason | None = None
    filled: Filled | None = None
    state_age_seconds: float | None = None
    features: Mapping[str, datetime] = field(default_factory=dict)
    ignored: tuple[Ignored, ...] = ()


@dataclass(frozen=True)
class SessionEvent:
    """What an anonymous visitor did. No type: the domain's `touch`; no time: just now."""

    item_id: str
    event_type: str | None = None
    event_ts: datetime | None = None
    value: float | None = None
