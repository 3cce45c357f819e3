"""The data in the order of time, cut so that nothing later can be seen.

Items are ordered by the moment from which they are known: at any moment the known ones are the
first rows. A part of the data that is handed out ends at a moment, and holds known items only.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nearline.domains import Domain
from nearline.errors import BadInput
from nearline.schema import EVENT_TS, EVENT_TYPE, ITEM_ID, ITEM_SCHEMA
from nearline.sequence import Vocabulary, microseconds
from nearline.windows import Window
from training.baselines import DAY_US
from training.dataset import NONE, Interactions, arranged, first_touch, interactions

HOUR_US = DAY_US // 24

ALWAYS = np.iinfo(np.int64).min
"""An item of the catalogue without a date is known from the beginning."""


@dataclass(frozen=True)
class Timeline:
    """All events, by user and time, and what of them is replayed.

    `everything` holds all events, `positive` (bool) those that may be foreseen, `known_since` the
    moment (microseconds) from which each item is known, ascending; `catalogue` the items in that
    order. `targets` are the positions of the replayed events, in the order of time; `start` is the
    whole hour in which the replay begins.
    """

    everything: Interactions
    positive: np.ndarray
    catalogue: pa.Table
    known_since: np.ndarray
    types: tuple[str, ...]
    start: int
    targets: np.ndarray

    @property
    def end(self) -> int:
        """The moment after the last event."""
        return int(self.everything.times.max()) + 1

    def between(self, begin: int, end: int) -> np.ndarray:
        """The replayed events from `begin` on and before `end`: positions, in the order of time."""
        times = self.everything.times[self.targets]
        return self.targets[slice(*np.searchsorted(times, [begin, end]))]

    def count(self, window: Window) -> int:
        """How many events there are in a window."""
        return self.happened(microseconds(window.start), microseconds(window.end))

    def happened(self, begin: int, end: int) -> int:
        """How many events there are from `begin` on and before `end`."""
        times = self.everything.times
        return int(((times >= begin) & (times < end)).sum())

    def items_before(self, moment: int) -> int:
        """How many items are known before a moment: the first rows."""
        return int(np.searchsorted(self.known_since, moment))

    def vocabulary(self, items: int) -> Vocabulary:
        """The first `items` items."""
        return Vocabulary(tuple(self.catalogue[ITEM_ID][:items].to_pylist()), self.types)

    def seen(self, *, before: int, items: int, since: int | None = None) -> "Seen":
        """The events before a moment, of the first `items` items; with `since`, not the older."""
        whole = self.everything
        kept = (whole.times < before) & (whole.items <= items)
        if since is not None:
            kept &= whole.times >= since
        columns = (
            *(whole.users, whole.items, whole.types, whole.times, whole.values),
            self.positive,
        )
        data = arranged(whole.user_ids, *(column[kept] for column in columns))
        return Seen(data, np.where(kept, np.cumsum(kept) - 1, NONE))


@dataclass(frozen=True)
class Seen:
    """A part of the data; `place` is where each event of the whole lies in it, or NONE."""

    data: Interactions
    place: np.ndarray


def make_timeline(events: pa.Table, items: pa.Table, domain: Domain, from_share: float) -> Timeline:
    """Clean events (EVENT_SCHEMA's ids, type and time) and a catalogue, which may be empty.

    An item is known from its creation, or from its first event where that comes first or the
    catalogue lacks it. The replay begins with the hour in which `from_share` of the events have
    happened. What is foreseen: positive events on items that are new to the user. Raises BadInput
    when nothing lies before or after that hour.
    """
    kept = pc.and_(
        pc.is_valid(events[ITEM_ID]), pc.is_in(events[EVENT_TYPE], pa.array(domain.telling))
    )
    events = events.filter(kept)
    if events.num_rows == 0:
        raise BadInput(
            "there is no event with an item and a type of the domain "
            f"{domain.name} ({', '.join(domain.telling)}): set NEARLINE_DOMAIN"
        )
    catalogue, known_since = order_items(events, items)
    vocabulary = Vocabulary(tuple(catalogue[ITEM_ID].to_pylist()), tuple(domain.telling))
    data = interactions(events, vocabulary, domain.positive)
    positive = np.isin(data.types, [vocabulary.type_row[name] + 1 for name in domain.positive])
    begun = np.sort(data.times)[min(int(len(data) * from_share), len(data) - 1)]
    start = int(begun // HOUR_US * HOUR_US)
    wanted = positive & first_touch(data.users, data.items) & (data.times >= start)
    targets = np.flatnonzero(wanted)
    if len(targets) == 0 or not (data.times < start).any():
        raise BadInput(
            f"nothing to replay: of {len(data)} events {int((data.times < start).sum())} come "
            f"before share {from_share} and {len(targets)} after it: choose another --from-share"
        )
    targets = targets[np.argsort(data.times[targets], kind="stable")]
    return Timeline(data, positive, catalogue, known_since, vocabulary.event_types, start, targets)


def order_items(events: pa.Table, items: pa.Table) -> tuple[pa.Table, np.ndarray]:
    """The catalogue and the items that only events name, by the moment they are known from."""
    touched = events.group_by(ITEM_ID).aggregate([(EVENT_TS, "min")])
    first = dict(
        zip(
            touched[ITEM_ID].to_pylist(),
            touched[f"{EVENT_TS}_min"].cast(pa.int64()).to_pylist(),
            strict=True,
        )
    )
    there = items[ITEM_ID].to_pylist()
    created = items["created_ts"].cast(pa.int64()).to_pylist()
    since = {
        item: min(ALWAYS if at is None else at, first.get(item, np.iinfo(np.int64).max))
        for item, at in zip(there, created, strict=True)
    }
    unlisted = sorted(first.keys() - since.keys())
    since |= {item: first[item] for item in unlisted}
    bare = pa.table(
        [
            pa.array(unlisted, field.type)
            if field.name == ITEM_ID
            else pa.nulls(len(unlisted), field.type)
            for field in ITEM_SCHEMA
        ],
        schema=ITEM_SCHEMA,
    )
    both = pa.concat_tables([items.cast(ITEM_SCHEMA), bare])
    ids = both[ITEM_ID].to_pylist()
    order = sorted(range(len(ids)), key=lambda row: (since[ids[row]], ids[row]))
    return both.take(pa.array(order, pa.int64())), np.array([since[ids[row]] for row in order])
