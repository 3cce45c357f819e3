"""A made-up stream of events with the traits that a recommender has to live with.

Users have tastes over categories that drift from one mix to another; they come in sessions, at the
hours of their day, some far more often than others. Items have a popularity with a long tail, new
ones appear every day, and a few burst for some days. Nothing here is real: figures of accuracy
taken on it say nothing about a real site; figures of load and scale do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from nearline.domains import Domain, EventType
from nearline.errors import BadInput
from nearline.schema import ITEM_SCHEMA, RAW_SCHEMA
from nearline.sources.dataset import conform, iso_texts

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

_CATEGORIES = 24
_SESSION_EVENTS = 8.0
_NEXT_STEP = 0.25
_GAP_S = 45.0
_BURSTS_A_DAY = 3
_BURST_DAYS = 4
_BURST_GAIN = 40.0
_BORN_BEFORE = 0.7
_PEAK_HOUR = 20.0


@dataclass(frozen=True)
class StreamSpec:
    """What to make: `events` in all, over `days` whole days that end at `end` (UTC midnight).

    Raises BadInput for a count below one.
    """

    users: int
    items: int
    events: int
    days: int
    end: datetime
    seed: int

    def __post_init__(self) -> None:
        for name in ("users", "items", "events", "days"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def start(self) -> datetime:
        """Midnight of the first day."""
        return self.end - timedelta(days=self.days)


class Stream:
    """The world behind a synthetic stream: the same spec and domain give the same bytes."""

    def __init__(self, spec: StreamSpec, domain: Domain) -> None:
        self.spec, self.domain = spec, domain
        rng = np.random.default_rng([spec.seed, 0])
        self._category: Index = rng.integers(0, _CATEGORIES, spec.items)
        self._popularity = _zipf(rng, spec.items, exponent=0.9)
        self._born = np.where(
            rng.random(spec.items) < _BORN_BEFORE, -1, rng.integers(0, spec.days, spec.items)
        )
        self._price = np.round(rng.lognormal(3, 1, spec.items), 2)
        self._activity = _zipf(rng, spec.users, exponent=0.7)
        self._taste_first = rng.dirichlet(np.full(_CATEGORIES, 0.2), spec.users)
        self._taste_last = rng.dirichlet(np.full(_CATEGORIES, 0.2), spec.users)
        self._burst_item = rng.integers(0, spec.items, (spec.days, _BURSTS_A_DAY))

    def items(self) -> pa.Table:
        """The whole catalogue (ITEM_SCHEMA); an item is created at the start of its first day."""
        ids = np.arange(self.spec.items)
        start = pd.Timestamp(self.spec.start)
        frame = pd.DataFrame(
            {
                "item_id": _ids("i", ids),
                "title": [f"Item {i} of kind {c}" for i, c in enumerate(self._category)],
                "categories": [[f"kind-{c}"] for c in self._category],
                "created_ts": start + pd.to_timedelta(self._born, unit="D"),
                "available": True,
                "attributes": [f'{{"price": {p}}}' for p in self._price],
            }
        )
        return conform(frame, ITEM_SCHEMA)

    def days(self) -> Iterator[pa.Table]:
        """Each day's events as raw rows, oldest day first."""
        made = np.diff(np.linspace(0, self.spec.events, self.spec.days + 1).astype(int))
        for day, events in enumerate(made):
            yield self._day(day, int(events))

    def _day(self, day: int, events: int) -> pa.Table:
        rng = np.random.default_rng([self.spec.seed, 1, day])
        session, position = self._sessions(rng, events)
        sessions = int(session[-1]) + 1 if events else 0
        users = rng.choice(self.spec.users, sessions, p=self._activity)
        begin = _day_times(rng, sessions)
        gaps = rng.exponential(_GAP_S, events)
        times = np.minimum(begin[session] + np.cumsum(gaps) - _at_first(gaps, position), 86_399.0)
        items = self._choose(rng, day, users[session])
        types, items = self._steps(rng, items, position)
        kinds = list(self.domain.event_types)
        stamps = pd.Timestamp(self.spec.start) + pd.to_timedelta(
            np.round((day * 86_400 + times) * 1e6).astype("int64"), unit="us"
        )
        needs_item = np.array([k.requires_item for k in self.domain.event_types.values()])[types]
        frame = pd.DataFrame(
            {
                "event_id": [f"s{self.spec.seed}-{day}-{n}" for n in range(events)],
                "user_id": _ids("u", users[session]),
                "item_id": pd.Series(_ids("i", items)).where(needs_item),
                "event_type": np.array(kinds, dtype=object)[types],
                "event_ts": iso_texts(pd.Series(stamps)),
                "value": self._values(rng, types, items),
                "query": pd.Series(_ids("kind ", self._category[items])).mask(needs_item),
                "session_id": [f"{day}-{s}" for s in session],
                "source": "load",
                "received_ts": stamps,
            }
        )
        return conform(frame, RAW_SCHEMA)

    def _sessions(self, rng: np.random.Generator, events: int) -> tuple[Index, Index]:
        """For each event the number of its session and its position there, both from 0."""
        lengths = rng.geometric(1 / _SESSION_EVENTS, events)
        ends = np.cumsum(lengths)
        session = np.searchsorted(ends, np.arange(events), side="right")
        return session, np.arange(events) - (ends - lengths)[session]

    def _choose(self, rng: np.random.Generator, day: int, users: Index) -> Index:
        """An item for each event: a category by the user's taste, an item by its weight."""
        share = day / max(self.spec.days - 1, 1)
        taste = (1 - share) * self._taste_first[users] + share * self._taste_last[users]
        drawn = (taste.cumsum(axis=1) < rng.random((len(users), 1))).sum(axis=1)
        category = np.minimum(drawn, _CATEGORIES - 1)
        weight = self._weights(day)
        chosen = np.zeros(len(users), dtype=np.int64)
        for kind in np.unique(category):
            rows = np.flatnonzero(category == kind)
            pool = np.flatnonzero((self._category == kind) & (weight > 0))
            if len(pool) == 0:
                pool = np.flatnonzero(weight > 0)
            chosen[rows] = rng.choice(pool, len(rows), p=weight[pool] / weight[pool].sum())
        return chosen

    def _weights(self, day: int) -> Array:
        weight = np.where(self._born <= day, self._popularity, 0.0)
        for age in range(min(_BURST_DAYS, day + 1)):
            weight[self._burst_item[day - age]] *= _BURST_GAIN / (1 + age) ** 2
        return weight if weight.any() else np.ones(self.spec.items)

    def _steps(
        self, rng: np.random.Generator, items: Index, position: Index
    ) -> tuple[Index, Index]:
        """Event types, and items: an event may go one step down the funnel on the item before."""
        kinds = list(self.domain.event_types)
        funnel = np.array([kinds.index(step) for step in self.domain.funnel])
        goes_on = (rng.random(len(items)) < _NEXT_STEP) & (position > 0)
        order = np.arange(len(items))
        run_start = np.maximum.accumulate(np.where(goes_on, 0, order))
        depth = np.minimum(order - run_start, len(funnel) - 1)
        types = funnel[depth]
        others = [i for i in range(len(kinds)) if i not in funnel]
        if others:
            aside = (rng.random(len(items)) < 0.05) & (depth == 0)
            types = np.where(aside, rng.choice(others, len(items)), types)
        return types, items[run_start]

    def _values(self, rng: np.random.Generator, types: Index, items: Index) -> list[str | None]:
        drawn = rng.beta(4, 2, len(types))
        kinds = list(self.domain.event_types.values())
        return [
            _value(kinds[t], d, p) for t, d, p in zip(types, drawn, self._price[items], strict=True)
        ]


def _value(kind: EventType, drawn: float, price: float) -> str | None:
    if kind.value is None:
        return None
    if kind.value.unit == "price":
        return repr(float(min(price, kind.value.max)))
    if kind.value.unit == "pieces":
        return repr(1.0)
    return repr(round(float(kind.value.min + drawn * (kind.value.max - kind.value.min)), 2))


def _zipf(rng: np.random.Generator, count: int, *, exponent: float) -> Array:
    """Shares that fall with a shuffled rank, as popularity does; they add up to one."""
    weight = np.arange(1, count + 1, dtype=float) ** -exponent
    shares: Array = rng.permutation(weight / weight.sum())
    return shares


def _day_times(rng: np.random.Generator, count: int) -> Array:
    """Seconds of the day at which sessions begin: most in the evening, some at any time."""
    evening = rng.normal(_PEAK_HOUR, 3.0, count) % 24
    hours: Array = np.where(rng.random(count) < 0.7, evening, rng.uniform(0, 24, count))
    return hours * 3600


def _at_first(gaps: Array, position: Index) -> Array:
    """For each event, the running sum of gaps at the first event of its session."""
    total = np.cumsum(gaps)
    first: Array = total[np.arange(len(gaps)) - position]
    return first


def _ids(prefix: str, numbers: Index) -> npt.NDArray[np.object_]:
    return np.array([f"{prefix}{n}" for n in numbers], dtype=object)
