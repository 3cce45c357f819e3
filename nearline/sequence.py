"""What the model reads of a user, made the same way for training, for evaluation and for serving.

A sequence of events becomes three rows of whole numbers, oldest event first: the item, the event
type, and the gap, which is the time from that event to the next one. The last event's gap runs to
the moment of prediction, which a request knows. Index 0 is padding, at the right end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np

PAD = 0
GAP_BUCKETS = 32
"""Gap bucket b holds gaps of [2^(b-1), 2^b) seconds; the last one holds everything longer."""

_MICROSECONDS = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(ts: datetime) -> int:
    """A time as whole microseconds since 1970."""
    return (ts - _EPOCH) // timedelta(microseconds=1)


def at_microseconds(ts_us: int) -> datetime:
    """The time of whole microseconds since 1970; the inverse of `microseconds`."""
    return _EPOCH + timedelta(microseconds=ts_us)


class History(NamedTuple):
    """Parallel columns of a user's events, oldest first; `event_ts` in microseconds since 1970."""

    item_ids: Sequence[str]
    event_types: Sequence[str]
    event_ts: Sequence[int]


class ModelInput(NamedTuple):
    """Whole numbers (int64), each of shape (length,) for one user or (batch, length) for many."""

    items: np.ndarray
    types: np.ndarray
    gaps: np.ndarray


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
    known = [
        (vocabulary.item_row[item] + 1, vocabulary.type_row[kind] + 1, ts)
        for item, kind, ts in zip(*history, strict=True)
        if item in vocabulary.item_row and kind in vocabulary.type_row
    ][-length:]
    columns = np.array(known, dtype=np.int64).reshape(-1, 3)
    return ModelInput(columns[:, 0], columns[:, 1], gap_buckets(columns[:, 2], now_us))


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


def pad(inputs: Sequence[ModelInput], length: int) -> ModelInput:
    """Many users' inputs as arrays of shape (batch, length), padded at the right with PAD."""
    batch = np.zeros((3, len(inputs), length), dtype=np.int64)
    for row, columns in enumerate(inputs):
        for part, column in enumerate(columns):
            batch[part, row, : len(column)] = column
    return ModelInput(*batch)
