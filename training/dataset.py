"""Events of the lake as sequences of numbers, and what may be learned from them.

All events lie in parallel arrays, ordered by user and time; a *position* is a place in them. The
state of a user at position `p` is made from the user's events up to `p` and from the gap to the
next one. An event is predicted from the last position that lies strictly before it in time, so
events of the same instant never tell of one another.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nearline.errors import MissingPartition
from nearline.lake import CATALOGUE, EVENTS, Lake
from nearline.schema import (
    EVENT_ID,
    EVENT_SCHEMA,
    EVENT_TS,
    EVENT_TYPE,
    ITEM_ID,
    ITEM_SCHEMA,
    TIMESTAMP,
    USER_ID,
    VALUE,
)
from nearline.sequence import (
    PAD,
    ModelInput,
    Vocabulary,
    gap_bucket,
    gap_buckets,
    hour_of_day,
    value_bucket,
)
from nearline.windows import Window

NONE = -1
"""No position: nothing is known of the user yet."""

_NO_GAP = 1

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""Multiplied by it, numbers are spread over all 64 bits (Knuth, TAOCP 6.4)."""

EVENTS_READ = pa.schema(
    [EVENT_SCHEMA.field(name) for name in (USER_ID, ITEM_ID, EVENT_TYPE, EVENT_TS, EVENT_ID, VALUE)]
)


@dataclass(frozen=True)
class Interactions:
    """The known events, by user and time; arrays of int64 (events,), `target` of bool.

    `users` is a user's number, `begins` the position of that user's first event, `items` and
    `types` are rows of the vocabulary plus 1, `times` microseconds since 1970; `gaps`, `values` and
    `hours` are as nearline.sequence has them. `states` is the position that an event is predicted
    from (NONE without one). `target` marks what is learned and measured: positive, foreseeable, and
    on an item new to the user.
    """

    user_ids: tuple[str, ...]
    users: np.ndarray
    begins: np.ndarray
    items: np.ndarray
    types: np.ndarray
    times: np.ndarray
    gaps: np.ndarray
    values: np.ndarray
    hours: np.ndarray
    states: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.items)

    def targets(self, *, since: int | None = None, before: int | None = None) -> np.ndarray:
        """Positions of targets with `since` <= time < `before` (microseconds)."""
        wanted = self.target.copy()
        if since is not None:
            wanted &= self.times >= since
        if before is not None:
            wanted &= self.times < before
        return np.flatnonzero(wanted)


def name_hashes(data: Interactions) -> np.ndarray:
    """A number of each user that stays the same as others come and go: uint64 (users,)."""
    return np.array([zlib.crc32(each.encode()) for each in data.user_ids], dtype=np.uint64)


def lots(data: Interactions, positions: np.ndarray) -> np.ndarray:
    """A number of each event, uint64: who draws the lowest draws the same events hour after hour.

    It is spread evenly, and depends on user and time alone.
    """
    whose = name_hashes(data)[data.users[positions]] << np.uint64(32)
    lot: np.ndarray = (whose ^ data.times[positions].astype(np.uint64)) * _GOLDEN
    return lot


def by_lot(data: Interactions, positions: np.ndarray) -> np.ndarray:
    """Positions in the order of their lots."""
    ordered: np.ndarray = positions[np.argsort(lots(data, positions), kind="stable")]
    return ordered


def read_events(lake: Lake, window: Window) -> pa.Table:
    """The clean events of `window`, the columns that training needs.

    A window may begin before the first hour of the lake. Raises MissingPartition when an hour
    between the first one and the window's end is not complete, or was removed for its age.
    """
    lake.require_kept(EVENTS, window)
    covered = [done for done in lake.covered(EVENTS) if done.start < window.end]
    if not covered:
        raise MissingPartition(
            f"there are no clean events before {window.end:%Y-%m-%dT%H:%M}Z: "
            "run `nearline features`"
        )
    window = Window(max(window.start, covered[0].start), window.end)
    lake.require_complete(EVENTS, window)
    return lake.read(EVENTS, window, schema=EVENTS_READ)


def read_catalogue(lake: Lake, *, before: datetime) -> pa.Table:
    """The items that existed before a moment, by id. Raises MissingPartition without any."""
    items = lake.read_snapshot(CATALOGUE, schema=ITEM_SCHEMA)
    later = pc.greater_equal(items["created_ts"], pa.scalar(before, TIMESTAMP))
    items = items.filter(pc.invert(pc.fill_null(later, False))).sort_by(ITEM_ID)
    if items.num_rows == 0:
        raise MissingPartition(
            f"the catalogue has no item created before {before:%Y-%m-%dT%H:%M}Z: "
            "load items first (`nearline load items`)"
        )
    return items


def interactions(events: pa.Table, vocabulary: Vocabulary, positive: Sequence[str]) -> Interactions:
    """Events (any order) as arrays; those of unknown items or types are left out."""
    items = _rows(events[ITEM_ID], vocabulary.item_ids)
    types = _rows(events[EVENT_TYPE], vocabulary.event_types)
    known = events.filter(pa.array((items > PAD) & (types > PAD)))
    known = known.sort_by([(name, "ascending") for name in (USER_ID, EVENT_TS, EVENT_ID)])
    encoded = known[USER_ID].combine_chunks().dictionary_encode()
    users = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    items = _rows(known[ITEM_ID], vocabulary.item_ids)
    types = _rows(known[EVENT_TYPE], vocabulary.event_types)
    times = known[EVENT_TS].cast(pa.int64()).to_numpy().astype(np.int64)
    user_ids = tuple(encoded.dictionary.to_pylist())
    values = known[VALUE].fill_null(0.0).to_numpy()
    wanted = np.isin(types, [vocabulary.type_row[name] + 1 for name in positive])
    return arranged(user_ids, users, items, types, times, value_bucket(values), wanted)


def arranged(
    user_ids: tuple[str, ...],
    users: np.ndarray,
    items: np.ndarray,
    types: np.ndarray,
    times: np.ndarray,
    values: np.ndarray,
    positive: np.ndarray,
) -> Interactions:
    """Columns that are ordered by user and time, with all that follows from them.

    `values` are buckets; `positive` (bool) marks the events that may be targets.
    """
    begins = run_starts(users)
    states = _states(begins, times)
    return Interactions(
        user_ids=user_ids,
        users=users,
        begins=begins,
        items=items,
        types=types,
        times=times,
        gaps=_gaps(users, times),
        values=values,
        hours=_hours(users, times),
        states=states,
        target=positive & (states != NONE) & first_touch(users, items),
    )


def _rows(column: pa.ChunkedArray, names: Sequence[str]) -> np.ndarray:
    """The vocabulary row of each value plus 1, PAD for a null or unknown one."""
    rows = pc.index_in(column.combine_chunks(), value_set=pa.array(names, pa.string()))
    found: np.ndarray = pc.add(rows.cast(pa.int64()), 1).fill_null(PAD).to_numpy()
    return found


def run_starts(*keys: np.ndarray) -> np.ndarray:
    """For each place, where its run of equal keys starts."""
    order = np.arange(len(keys[0]))
    changed = np.ones(len(order), dtype=bool)
    changed[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    starts: np.ndarray = np.maximum.accumulate(np.where(changed, order, 0))
    return starts


def _states(begins: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The last position of the same user strictly before each event."""
    before = run_starts(begins, times) - 1
    states: np.ndarray = np.where(before >= begins, before, NONE)
    return states


def _gaps(users: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The gap bucket from each event to the user's next one; nothing follows the last one."""
    gaps = gap_buckets(times, 0)
    gaps[last_events(users)] = _NO_GAP
    return gaps


def _hours(users: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The hour of the user's next event; PAD where nothing follows."""
    hours = hour_of_day(np.append(times[1:], 0)[: len(times)])
    hours[last_events(users)] = PAD
    return hours


def last_events(users: np.ndarray) -> np.ndarray:
    """Whether an event is its user's last one: bool (events,)."""
    return np.append(users[1:] != users[:-1], True)[: len(users)]


def first_touch(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Whether an event is its user's first one on its item."""
    first = np.zeros(len(users), dtype=bool)
    pairs = users * (items.max(initial=0) + 1) + items
    first[np.unique(pairs, return_index=True)[1]] = True
    return first


@dataclass(frozen=True)
class Batch:
    """Sequences side by side, and the states wanted of them.

    `inputs` are (batch, length). Target `targets[i]` (a position) is predicted from the state at
    `cells[0][i], cells[1][i]` (row and column of the batch); `order[i]` is its place among the
    targets asked for.
    """

    inputs: ModelInput
    cells: tuple[np.ndarray, np.ndarray]
    targets: np.ndarray
    order: np.ndarray


def batches(
    data: Interactions,
    targets: np.ndarray,
    *,
    length: int,
    stride: int,
    tokens: int,
    rng: np.random.Generator | None = None,
) -> Iterator[Batch]:
    """Batches of about `tokens` events, of sequences of like length, shuffled with `rng`.

    A sequence reads at most `length` events, and each event of it that predicts a target is used.
    Longer histories are cut into overlapping sequences, `stride` events further each: with 1,
    every state has read exactly the newest `length` events, as a request does.
    """
    order = np.argsort(data.states[targets], kind="stable")
    states = data.states[targets][order]
    starts, stops, cuts = _sequences(states, data.begins[states], length, stride)
    by_length = np.argsort(stops - starts, kind="stable")
    if rng is not None:
        # Shuffled first, so that sequences of one length meet others in every pass.
        shuffled = rng.permutation(len(starts))
        by_length = shuffled[np.argsort((stops - starts)[shuffled], kind="stable")]
    groups = _by_tokens((stops - starts)[by_length], tokens)
    for number in rng.permutation(len(groups)) if rng is not None else range(len(groups)):
        rows = by_length[groups[number]]
        counts = np.diff(cuts)[rows]
        places = ranges(cuts[rows], counts)
        row = np.repeat(np.arange(len(rows)), counts)
        column = states[places] - starts[rows][row]
        inputs = _inputs(data, starts[rows], stops[rows])
        yield Batch(inputs, (row, column), targets[order[places]], order[places])


def batch_count(
    data: Interactions, targets: np.ndarray, *, length: int, stride: int, tokens: int
) -> int:
    """How many batches `batches` makes of these."""
    states = np.sort(data.states[targets])
    starts, stops, _ = _sequences(states, data.begins[states], length, stride)
    return len(_by_tokens(np.sort(stops - starts), tokens))


def _sequences(
    states: np.ndarray, begins: np.ndarray, length: int, stride: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sequences `[start, stop)` that cover the sorted `states`, with the cuts between their shares.

    The first `length` states of a user share one sequence, then each `stride` states share one.
    """
    group = np.maximum(states - begins - length, -1) // stride
    first = np.flatnonzero(run_starts(begins, group) == np.arange(len(states)))
    cuts = np.append(first, len(states))
    stops = states[cuts[1:] - 1] + 1
    return np.maximum(begins[first], stops - length), stops, cuts


def _by_tokens(lengths: np.ndarray, tokens: int) -> list[slice]:
    """Neighbours in groups of about `tokens`, the longest of a group counted for all of it."""
    groups, start = [], 0
    for place, longest in enumerate(lengths):
        if place > start and (place - start + 1) * longest > tokens:
            groups.append(slice(start, place))
            start = place
    return [*groups, slice(start, len(lengths))] if len(lengths) else []


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`start, start + 1, …` for each start, `count` numbers each, one after the other."""
    ends = np.cumsum(counts)
    shift = starts - (ends - counts)
    numbers: np.ndarray = np.arange(ends[-1] if len(ends) else 0) + np.repeat(shift, counts)
    return numbers


def _inputs(data: Interactions, starts: np.ndarray, stops: np.ndarray) -> ModelInput:
    """The sequences `[start, stop)` as (batch, longest), padded at the right."""
    places = starts[:, None] + np.arange((stops - starts).max())
    inside = places < stops[:, None]
    places = np.minimum(places, len(data) - 1)
    columns = (data.items, data.types, data.gaps, data.values, data.hours)
    return ModelInput(*(np.where(inside, column[places], PAD) for column in columns))


def requests(
    data: Interactions, states: np.ndarray, moments: np.ndarray, *, length: int
) -> ModelInput:
    """What requests at `moments` (microseconds) read: the newest `length` events up to `states`.

    After the last event comes the moment, as serving has it. int64 (states, longest), padded at the
    right. No state may be NONE.
    """
    starts = np.maximum(data.begins[states], states + 1 - length)
    inputs = _inputs(data, starts, states + 1)
    last = np.arange(len(states)), states - starts
    inputs.gaps[last] = gap_bucket(moments - data.times[states])
    inputs.hours[last] = hour_of_day(moments)
    return inputs


def touched(
    data: Interactions, states: np.ndarray, *, newest: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The items of a user's events (the `newest` ones, or all) up to each of `states`.

    NONE has touched nothing. Returns parallel arrays: numbers of states, and item rows.
    """
    first = np.where(states == NONE, 0, data.begins[states])
    if newest is not None:
        first = np.maximum(first, states - newest + 1)
    counts = states - first + 1
    numbers = np.repeat(np.arange(len(states)), counts)
    return numbers, data.items[ranges(first, counts)] - 1


def cut_time(times: np.ndarray, share: float) -> int:
    """The time (microseconds) from which on the newest `share` of the events lie."""
    ordered = np.sort(times)
    return int(ordered[min(int(len(ordered) * (1 - share)), len(ordered) - 1)])
