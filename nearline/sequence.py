"""What the model reads of a user, made the same way for training, for evaluation and for serving.

A sequence of events becomes five rows of whole numbers, oldest event first: the item, the event
type, the event's value, the gap, which is the time from that event to the next one, and the hour of
the day at which that next one happens. After the last event comes the moment of prediction, which a
request knows. Index 0 is padding, at the right end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np

PAD = 0
GAP_BUCKETS = 32
"""Gap bucket b holds gaps of [2^(b-1), 2^b) seconds; the last one holds everything longer."""

VALUE_BUCKETS = 192
"""Buckets of values, four to each power of two: from 2^-8 to 2^16, then the same below 0."""

HOURS = 24

_MICROSECONDS = 1_000_000
_HOUR = 3600 * _MICROSECONDS
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(ts: datetime) -> int:
    """A time as whole microseconds since 1970."""
    return (ts - _EPOCH) // timedelta(microseconds=1)


def at_microseconds(ts_us: int) -> datetime:
    """The time of whole microseconds since 1970; the inverse of `microseconds`."""
    return _EPOCH + timedelta(microseconds=ts_us)


class History(NamedTuple):
    """Parallel columns of a user's events, oldest first; `event_ts` in microseconds since 1970.

    An event without a value has 0.
    """

    item_ids: Sequence[str]
    event_types: Sequence[str]
    event_ts: Sequence[int]
    values: Sequence[float]


class ModelInput(NamedTuple):
    """Whole numbers (int64), each of shape (length,) for one user or (batch, length) for many."""

    items: np.ndarray
    types: np.ndarray
    gaps: np.ndarray
    values: np.ndarray
    hours: np.ndarray


@dataclass(frozen=True)
class Vocabulary:
    """The items and event types that one release knows.

    Row `r` of the release's item matrix belongs to `item_ids[r]` and is fed to the model as
    `r + 1`; event types likewise.
    """

    item_ids: tuple[str, ...]
    event_types: tuple[str, ...]
    item_row: dict[str, int] = field(init=False, repr=False, compare=False)
    type_row: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "item_row", {name: row for row, name in enumerate(self.item_ids)})
        object.__setattr__(
            self, "type_row", {name: row for row, name in enumerate(self.event_types)}
        )


def model_input(
    history: History, vocabulary: Vocabulary, *, now_us: int, length: int
) -> ModelInput:
    """The newest `length` events that the vocabulary knows, unpadded; empty when it knows none.

    `now_us` is the moment of prediction in microseconds since 1970. Events of unknown items or
    types are left out, as the model has no vector for them.
    """
    item_row, type_row = vocabulary.item_row, vocabulary.type_row
    known = [
        (item_row[item] + 1, type_row[kind] + 1, ts, value)
        for item, kind, ts, value in zip(*history, strict=True)
        if item in item_row and kind in type_row
    ][-length:]
    items, types, times, values = zip(*known, strict=True) if known else ((),) * 4
    moments_us = np.array([*times, now_us], dtype=np.int64)
    return ModelInput(
        np.array(items, dtype=np.int64),
        np.array(types, dtype=np.int64),
        gap_bucket(moments_us[1:] - moments_us[:-1]),
        value_bucket(np.array(values, dtype=np.float64)),
        hour_of_day(moments_us[1:]),
    )


def gap_buckets(event_ts: np.ndarray, now_us: int) -> np.ndarray:
    """The bucket (1 to GAP_BUCKETS) of the time from each event to the next, or to now.

    `event_ts` is int64 (length,) in microseconds; a gap that runs backwards counts as none.
    """
    return gap_bucket(np.diff(event_ts, append=now_us))


def gap_bucket(gaps_us: np.ndarray) -> np.ndarray:
    """The bucket (1 to GAP_BUCKETS) of each gap in microseconds."""
    seconds = np.maximum(gaps_us // _MICROSECONDS, 0)
    # frexp is exact where a logarithm would round at the edges: s = m * 2^e with 0.5 <= m < 1.
    exponent = np.frexp(seconds.astype(np.float64))[1]
    return np.minimum(exponent, GAP_BUCKETS - 1).astype(np.int64) + 1


def value_bucket(values: np.ndarray) -> np.ndarray:
    """The bucket (1 to VALUE_BUCKETS) of each value, whatever its unit; PAD for 0 and no number.

    A rating of 4 and one of 5, a fifth and a quarter of a film stand apart; 1,100 and 1,200 do not.
    """
    told = np.isfinite(values) & (values != 0)
    share, exponent = np.frexp(np.where(told, np.abs(values), 1.0))
    quarter = ((share - 0.5) * 8).astype(np.int64)  # of [0.5, 1), as share lies there
    half = VALUE_BUCKETS // 2
    place = np.clip(4 * (exponent.astype(np.int64) + 7) + quarter, 0, half - 1)
    return np.where(told, place + 1 + half * (values < 0), PAD)


def hour_of_day(moments_us: np.ndarray) -> np.ndarray:
    """The hour (1 to HOURS, UTC) of each moment in microseconds since 1970.

    Files without times count from there: on its first day nothing has an hour, and gets PAD.
    """
    hours = moments_us // _HOUR
    return np.where(hours < HOURS, PAD, hours % HOURS + 1).astype(np.int64)


def pad(inputs: Sequence[ModelInput], length: int) -> ModelInput:
    """Many users' inputs as arrays of shape (batch, length), padded at the right with PAD."""
    batch = np.zeros((len(ModelInput._fields), len(inputs), length), dtype=np.int64)
    for row, columns in enumerate(inputs):
        for part, column in enumerate(columns):
            batch[part, row, : len(column)] = column
    return ModelInput(*batch)
