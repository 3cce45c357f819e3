"""What a ranker reads of a candidate, made the same way for training and for serving.

A request's candidates come from several sources. Each becomes a row of numbers: how each source
places it, how near it lies to what the user touched last, what Feast knows of the item and of the
user, and the request's own time. A number that is not known is NaN. The order of the sources'
lists counts more than their scores, which another night's lists may not share: a list's scores are
read as shares of its best one.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from typing import Any, TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)

POOL = 100
"""Candidates of each source, at most."""

RANKED = 100
"""Candidates of all sources that a ranker orders: to read more would take longer than it gains."""

TIED = 10
"""So many newest items of a user are looked up for their neighbours and for what is like them, and
compared by vectors."""

SOURCES = ("encoder", "cooccurrence", "alike", "trending")
"""What proposes candidates, by the names that serving uses."""

RANK_OFFSET = 60
"""k of reciprocal rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009), as in the paper."""

WEIGHTS = {
    "encoder": 1.0,
    "vectors": 1.0,
    "words": 1.0,
    "cooccurrence": 0.5,
    "content": 0.5,
    "trending": 0.25,
    "popular": 0.25,
    "alike": 0.1,
}
"""How much the rank in each source counts where lists are fused."""


def named(feature: str) -> str:
    """What Feast calls `view:feature` in its answers."""
    return feature.replace(":", "__")


USER_NUMBERS = (
    "user_activity:events_1h",
    "user_activity:events_24h",
    "user_activity:events_7d",
    "user_activity:events_30d",
    "user_habits:sessions_30d",
    "user_habits:session_events_30d",
    "user_habits:weekend_share",
    "user_category_affinity:distinct_categories",
    "user_category_affinity:diversity",
)
_HOURS = "user_habits:hours_of_day"
_CATEGORIES = "user_category_affinity:categories"
_AFFINITIES = "user_category_affinity:affinities"
USER_FEATURES = (*USER_NUMBERS, _HOURS, _CATEGORIES, _AFFINITIES)

ITEM_FEATURES = (
    "item_popularity:events_1h",
    "item_popularity:events_24h",
    "item_popularity:events_7d",
    "item_popularity:events_30d",
    "item_popularity:velocity",
    "item_popularity:mean_value_30d",
    "item_popularity:age_hours",
    "item_popularity:decayed_weight",
    "item_conversion:conversion_30d",
)

COLUMNS = (
    *(f"{source}_{what}" for source in SOURCES for what in ("place", "share")),
    "encoder_score",
    "fused",
    "near_newest",
    "near_mean",
    "near_best",
    *map(named, ITEM_FEATURES),
    "affinity_sum",
    "affinity_best",
    *map(named, USER_NUMBERS),
    "usual_hour",
    "hour",
    "weekday",
    "seconds_since_last",
    "events_known",
)
"""The columns of a matrix. A ranker is of use only where they are those that it was trained on."""

HOUR_US = 3_600_000_000
_DAY_HOURS = 24
_THURSDAY = 3
"""1970 began on one."""


@dataclass(frozen=True)
class RankedUser:
    """What Feast knows of a user: `numbers` (USER_NUMBERS), habits by UTC hour, tastes."""

    numbers: np.ndarray
    hours: Sequence[float] = ()
    affinities: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "RankedUser":
        """From Feast's answer (see `named`); what is missing or None is not known."""
        hours, names, shares = (_listed(row, name) for name in (_HOURS, _CATEGORIES, _AFFINITIES))
        return cls(
            numbers=numbers([row.get(named(name)) for name in USER_NUMBERS]),
            hours=hours,
            affinities=dict(zip(names, shares, strict=True)),
        )


def _listed(row: Mapping[str, Any], feature: str) -> Sequence[Any]:
    """A feature that is a list; empty where it is not known."""
    found: Sequence[Any] | None = row.get(named(feature))
    return () if found is None else found


@dataclass(frozen=True)
class Context:
    """A request: its time, and the times of the user's events up to it (microseconds)."""

    now_us: int
    last_us: int
    events: int


def numbers(values: Sequence[Any]) -> np.ndarray:
    """Values as float32, None as NaN."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float32)


def pooled(lists: Mapping[str, Sequence[tuple[Key, float]]]) -> list[Key]:
    """The candidates that are ranked: the best of each source in turn, each once."""
    turns = zip_longest(*(lists.get(source, ()) for source in SOURCES))
    keys = dict.fromkeys(pair[0] for turn in turns for pair in turn if pair is not None)
    return list(islice(keys, RANKED))


def matrix(
    candidates: Sequence[Key],
    lists: Mapping[str, Sequence[tuple[Key, float]]],
    *,
    vectors: np.ndarray,
    newest: np.ndarray,
    items: np.ndarray,
    categories: Sequence[Sequence[str]],
    user: RankedUser,
    context: Context,
) -> np.ndarray:
    """COLUMNS of each candidate, float32 (candidates, columns).

    `lists` holds pairs of (candidate, score) of each source, best first. `vectors` (candidates,
    dim) and `newest` (events, dim), oldest first, are of length 1; `items` is ITEM_FEATURES of each
    candidate.
    """
    places = {key: place for place, key in enumerate(candidates)}
    own = [
        *_placed(places, lists),
        *_nearness(vectors, newest),
        *items.T,
        *_liked(categories, user.affinities),
    ]
    found = np.empty((len(candidates), len(COLUMNS)), dtype=np.float32)
    found[:, : len(own)] = np.transpose(own)
    found[:, len(own) :] = [*user.numbers, *_told(user, context)]
    return found


def _placed(
    places: Mapping[Key, int], lists: Mapping[str, Sequence[tuple[Key, float]]]
) -> list[np.ndarray]:
    """Place and share of the best score in each source's list; then the encoder's own score, and
    that of reciprocal rank fusion."""
    columns, raw, fused = [], np.full(len(places), np.nan), np.zeros(len(places))
    for source in SOURCES:
        found = lists.get(source, ())
        best = found[0][1] if len(found) and found[0][1] > 0 else np.nan
        there = [(places.get(key, -1), at, score) for at, (key, score) in enumerate(found)]
        told = np.array(there, dtype=np.float64).reshape(-1, 3)
        row, at, scores = told[told[:, 0] >= 0].T
        rows = row.astype(np.int64)
        place, share = np.full((2, len(places)), np.nan)
        place[rows] = at
        share[rows] = scores / best
        columns += [place, share]
        fused[rows] += WEIGHTS[source] / (RANK_OFFSET + 1 + at)
        if source == "encoder":
            raw[rows] = scores
    return [*columns, raw, fused]


def _nearness(vectors: np.ndarray, newest: np.ndarray) -> list[np.ndarray]:
    """Cosines with the newest item, their mean and their best over all of `newest`."""
    if len(newest) == 0:
        return [np.full(len(vectors), np.nan)] * 3
    cosines = vectors @ newest.T
    return [cosines[:, -1], cosines.mean(axis=1), cosines.max(axis=1)]


def _liked(
    categories: Sequence[Sequence[str]], affinities: Mapping[str, float]
) -> list[np.ndarray]:
    """The user's affinity to the categories of each candidate: their sum, and the best one."""
    if not affinities:
        return [np.full(len(categories), np.nan)] * 2
    found = [[affinities.get(name, 0.0) for name in names] or [0.0] for names in categories]
    return [np.array([*map(sum, found)]), np.array([*map(max, found)])]


def _told(user: RankedUser, context: Context) -> list[float]:
    """The user's share of this hour of the day, the time, the gap to the last event, the events."""
    hours = context.now_us // HOUR_US
    hour = hours % _DAY_HOURS
    usual = float(user.hours[hour]) if len(user.hours) == _DAY_HOURS else np.nan
    weekday = (hours // _DAY_HOURS + _THURSDAY) % 7
    gap_s = max(context.now_us - context.last_us, 0) / 1e6
    return [usual, hour, weekday, gap_s, context.events]
