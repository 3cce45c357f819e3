"""What is asked of the recommender, and what it answers. Nothing here knows HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from serving.filters import ANY, Filters
from serving.reasons import Reason, Retriever, Source


@dataclass(frozen=True)
class Context:
    """Where a list is shown: beside an item that the user looks at, on a page of a category."""

    item_id: str | None = None
    category: str | None = None
    page: str | None = None
    device: str | None = None


@dataclass(frozen=True)
class Arrangement:
    """How candidates become a list: as the settings of these names say, or an arm of an experiment.

    Without `promotions` promoted items are left out.
    """

    category_cap: float
    freshness: float = 0.0
    freshness_hours: float = 72.0
    explore: float = 0.0
    promotions: bool = True


@dataclass(frozen=True)
class Asked:
    """How a list is wanted. `fill`: a list that the filters left too short is filled up.

    `arrangement` stands in for that of the settings. Not `ranked`: in the order of the fusion.
    `list_id` is the list's own, from which lots are drawn.
    """

    limit: int = 10
    filters: Filters = ANY
    exclude: frozenset[str] = frozenset()
    explain: bool = False
    fill: bool = True
    arrangement: Arrangement | None = None
    ranked: bool = True
    surface: str | None = None
    context: Context = Context()
    list_id: str = ""

    @property
    def categories(self) -> frozenset[str]:
        """The categories that the list is meant for: what is filtered by, and that of the page."""
        page = self.context.category
        return self.filters.categories | ({page} if page else set())


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

    `ranked` is the ranker's score, where it ordered the list; `boost` that of a new item's place.
    """

    scores: Mapping[Retriever, float]
    ties: tuple[Tie, ...] = ()
    ranked: float | None = None
    boost: float = 1.0


@dataclass(frozen=True)
class ScoredItem:
    """A recommended item. Scores order one answer; those of different sources do not compare.

    `matches` is False for an item that fills up a list which the filters left too short;
    `propensity` is the chance that lots gave it this place.
    """

    item_id: str
    title: str | None
    score: float
    source: Retriever
    matches: bool = True
    why: Why | None = None
    propensity: float = 1.0


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

    @property
    def propensities(self) -> list[float] | None:
        """The chance of each item to stand where it stands; None where no lot was drawn."""
        found = [item.propensity for item in self.items]
        return found if any(chance < 1 for chance in found) else None


@dataclass(frozen=True)
class SessionEvent:
    """What an anonymous visitor did. No type: the domain's `touch`; no time: just now."""

    item_id: str
    event_type: str | None = None
    event_ts: datetime | None = None
    value: float | None = None
