"""A made-up stream of events with the traits that a recommender has to live with.

Users have tastes that drift from one mix to another; they come in sessions, at the hours of their
day, some far more often than others, and return to what they liked. Items have a popularity with a
long tail, new ones appear every day, and some burst for a few days. Nothing here is real: figures
of accuracy taken on it say nothing about a real site; figures of load and scale do.
docs/explanation/synthetic.md compares it with real logs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nearline.domains import Domain, EventType
from nearline.errors import BadInput
from nearline.schema import ITEM_SCHEMA, RAW_SCHEMA, TIMESTAMP
from nearline.sources.world import KINDS, Floats, Ints, Shelf, World

BATCH_EVENTS = 500_000
"""Events made at once: what bounds the memory of a stream of any length."""

_DAY_S = 86_400.0
_LONGEST = 500
_LENGTH_MEDIAN, _LENGTH_SPREAD = 3.2, 1.2
_GAP_MEDIAN_S, _GAP_SPREAD, _GAP_LIMIT_S = 18.0, 1.1, 1_200.0
_ROUND_THE_CLOCK = 0.1
_HOURS_SPREAD = 2.0
_NEXT_STEP = 0.2
_ASIDE = 0.05
_OTHER_TASTE = 0.2
_ANYTHING = 0.1
_RETURN = 0.1
_REMEMBERED = 4
_LEVELS = 100


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


@dataclass(frozen=True)
class _Sessions:
    """Sessions of one day by their beginning: `number`, `user`, `length`, `begin_s`."""

    number: Ints
    user: Ints
    length: Ints
    begin_s: Floats


class Stream:
    """A synthetic stream: the same spec and domain give the same bytes."""

    def __init__(self, spec: StreamSpec, domain: Domain) -> None:
        self.spec, self.domain = spec, domain
        self.world = World(spec.users, spec.items, spec.days, spec.seed)
        self._kinds = list(domain.event_types)
        self._user_ids = _texts("u", np.arange(spec.users))
        self._item_ids = _texts("i", np.arange(spec.items))
        style = np.arange(self.world.styles)
        self._queries = _texts("kind ", style % KINDS, " style ", style)
        self._value_texts, self._value_base = self._value_table()

    def items(self) -> pa.Table:
        """The whole catalogue (ITEM_SCHEMA); an item is created at the start of its first day."""
        world, count = self.world, self.spec.items
        kind = world.style % KINDS
        created = np.datetime64(self.spec.start.replace(tzinfo=None), "us")
        columns = {
            "item_id": self._item_ids,
            "title": _texts("Item ", np.arange(count), " of kind ", kind),
            "categories": pa.ListArray.from_arrays(
                np.arange(count + 1, dtype=np.int32), _texts("kind-", kind)
            ),
            "created_ts": pa.array(created + world.born.astype("timedelta64[D]")).cast(TIMESTAMP),
            "available": pa.array(np.full(count, True)),
            "attributes": _texts('{"price": ', world.price, "}"),
        }
        return _table(columns, ITEM_SCHEMA)

    def batches(self) -> Iterator[pa.Table]:
        """The events as raw rows (RAW_SCHEMA), oldest day first, each day in one or more parts."""
        liked = np.full((self.spec.users, _REMEMBERED), -1, dtype=np.int32)
        made = np.diff(np.linspace(0, self.spec.events, self.spec.days + 1).astype(np.int64))
        for day, events in enumerate(made):
            rng = np.random.default_rng([self.spec.seed, 1, day])
            shelf, first = self.world.shelf(day), 0
            for sessions in self._sessions(rng, day, int(events)):
                rows = self._rows(rng, day, first, sessions, shelf, liked)
                first += rows.num_rows
                yield rows

    def _sessions(self, rng: np.random.Generator, day: int, events: int) -> Iterator[_Sessions]:
        """A day's sessions by their beginning, in batches of about BATCH_EVENTS."""
        if events == 0:
            return
        length = _lengths(rng, events)
        user = self.world.visitors(rng, day, len(length))
        begin = _begin(rng, self.world.peak_hour[user])
        order = np.argsort(begin, kind="stable")
        batch = (np.cumsum(length[order]) - 1) // BATCH_EVENTS
        for part in np.split(order, np.flatnonzero(np.diff(batch)) + 1):
            yield _Sessions(part, user[part], length[part], begin[part])

    def _rows(
        self,
        rng: np.random.Generator,
        day: int,
        first: int,
        sessions: _Sessions,
        shelf: Shelf,
        liked: Ints,
    ) -> pa.Table:
        session = np.repeat(np.arange(len(sessions.length)), sessions.length)
        begins = np.cumsum(sessions.length) - sessions.length
        position = np.arange(len(session)) - begins[session]
        users = sessions.user[session]
        items = self._choose(rng, day, users, position, shelf, liked)
        types, items = self._steps(rng, items, position)
        kept = rng.integers(0, _REMEMBERED, len(begins))
        liked[sessions.user, kept] = items[begins + sessions.length - 1]
        seconds = _times(rng, sessions.begin_s, session, begins)
        times = self._times(day, seconds)
        itemless = ~np.array([k.requires_item for k in self.domain.event_types.values()])[types]
        columns = {
            "event_id": _texts(f"s{self.spec.seed}-{day}-", np.arange(first, first + len(session))),
            "user_id": self._user_ids.take(pa.array(users)),
            "item_id": self._item_ids.take(pa.array(items, mask=itemless)),
            "event_type": pa.array(self._kinds).take(pa.array(types)),
            "event_ts": _iso_texts(times),
            "value": self._values(rng, types, items),
            "query": self._queries.take(pa.array(self.world.style[items], mask=~itemless)),
            "session_id": _texts(f"{day}-", sessions.number[session]),
            "source": pa.repeat(pa.scalar("load"), len(session)),
            "received_ts": times,
        }
        return _table(columns, RAW_SCHEMA)

    def _times(self, day: int, seconds: Floats) -> pa.Array:
        start = np.datetime64((self.spec.start + timedelta(days=day)).replace(tzinfo=None), "us")
        return pa.array(start + (seconds * 1e6).astype("timedelta64[us]")).cast(TIMESTAMP)

    def _choose(
        self,
        rng: np.random.Generator,
        day: int,
        users: Ints,
        position: Ints,
        shelf: Shelf,
        liked: Ints,
    ) -> Ints:
        """An item for each event: of a taste that lasts for a while, or one that was liked."""
        count = len(users)
        turns = (position == 0) | (rng.random(count) < _OTHER_TASTE)
        styles = self.world.tastes(rng, day, users)[_last_true(turns)]
        items = shelf.draw(rng, styles, rng.random(count) < _ANYTHING)
        known = liked[users, rng.integers(0, _REMEMBERED, count)]
        return np.where((rng.random(count) < _RETURN) & (known >= 0), known, items)

    def _steps(self, rng: np.random.Generator, items: Ints, position: Ints) -> tuple[Ints, Ints]:
        """Event types, and items: an event may go one step down the funnel on the item before."""
        funnel = np.array([self._kinds.index(step) for step in self.domain.funnel])
        goes_on = (rng.random(len(items)) < _NEXT_STEP) & (position > 0)
        start = _last_true(~goes_on)
        depth = np.minimum(np.arange(len(items)) - start, len(funnel) - 1)
        types = funnel[depth]
        others = [i for i in range(len(self._kinds)) if i not in funnel]
        if others:
            aside = (rng.random(len(items)) < _ASIDE) & (depth == 0)
            types = np.where(aside, rng.choice(others, len(items)), types)
        return types, items[start]

    def _value_table(self) -> tuple[pa.Array, Ints]:
        """The texts of all values, and where those of each event type begin (-1: it has none)."""
        texts: list[str] = []
        base = []
        for kind in self.domain.event_types.values():
            base.append(len(texts) if kind.value else -1)
            texts += self._texts_of(kind)
        return pa.array(texts, pa.string()), np.array(base)

    def _texts_of(self, kind: EventType) -> list[str]:
        if kind.value is None:
            return []
        if kind.value.unit == "price":
            return [repr(price) for price in np.minimum(self.world.price, kind.value.max).tolist()]
        if kind.value.unit == "pieces":
            return ["1.0"]
        levels = np.linspace(kind.value.min, kind.value.max, _LEVELS + 1)
        return [repr(level) for level in np.round(levels, 3).tolist()]

    def _values(self, rng: np.random.Generator, types: Ints, items: Ints) -> pa.Array:
        """The price, one piece, or a level that the item's quality and the moment make."""
        level = (self.world.quality[items] + rng.beta(4, 2, len(items))) / 2
        spot = self._value_base[types]
        for number, kind in enumerate(self.domain.event_types.values()):
            if kind.value is not None and kind.value.unit != "pieces":
                chosen = items if kind.value.unit == "price" else np.rint(level * _LEVELS)
                spot = np.where(types == number, spot + chosen.astype(np.int64), spot)
        return self._value_texts.take(pa.array(spot, mask=spot < 0))


def _lengths(rng: np.random.Generator, events: int) -> Ints:
    """Lengths of sessions that hold `events` in all: log-normal, many of one event."""
    drawn = np.exp(_LENGTH_SPREAD * rng.standard_normal(events, dtype=np.float32))
    lengths = np.minimum(1 + (_LENGTH_MEDIAN * drawn).astype(np.int64), _LONGEST)
    until = np.cumsum(lengths)
    last = int(np.searchsorted(until, events))
    lengths[last] -= until[last] - events
    return lengths[: last + 1]


def _begin(rng: np.random.Generator, peak_hour: Floats) -> Floats:
    """Seconds of the day at which sessions begin: near their user's hour, some at any."""
    near = rng.normal(peak_hour, _HOURS_SPREAD) % 24
    anytime = rng.random(len(peak_hour)) < _ROUND_THE_CLOCK
    return np.where(anytime, rng.uniform(0, 24, len(peak_hour)), near) * 3600


def _times(rng: np.random.Generator, begin_s: Floats, session: Ints, begins: Ints) -> Floats:
    """Seconds of the day of each event; a session that would pass midnight begins earlier."""
    drawn = _GAP_MEDIAN_S * np.exp(_GAP_SPREAD * rng.standard_normal(len(session)))
    passed = np.cumsum(np.minimum(drawn, _GAP_LIMIT_S))
    since = passed - passed[begins][session]
    lasts = since[np.append(begins[1:], len(session)) - 1]
    begin = np.maximum(np.minimum(begin_s, _DAY_S - 1 - lasts), 0)
    return np.minimum(begin[session] + since, _DAY_S - 1)


def _last_true(flags: np.ndarray) -> Ints:
    """For each place the last one up to it that is true; the first place must be."""
    return np.maximum.accumulate(np.where(flags, np.arange(len(flags)), 0))


def _texts(*parts: str | np.ndarray) -> pa.Array:
    """Texts joined of constants and numbers, one for each number."""
    columns = [p if isinstance(p, str) else pa.array(p).cast(pa.string()) for p in parts]
    return pc.binary_join_element_wise(*columns, "")


def _iso_texts(times: pa.Array) -> pa.Array:
    """UTC times as `dataset.iso_texts` writes them; a cast takes a fifth of the time."""
    texts = times.cast(pa.timestamp("us")).cast(pa.string())
    return pc.binary_join_element_wise(pc.utf8_replace_slice(texts, 10, 11, "T"), "+00:00", "")


def _table(columns: dict[str, pa.Array], schema: pa.Schema) -> pa.Table:
    """Columns as a table of `schema`; those that lack are null."""
    count = len(next(iter(columns.values())))
    return pa.table([columns.get(f.name, pa.nulls(count, f.type)) for f in schema], schema=schema)
