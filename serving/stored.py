"""What many requests read alike from the online store, kept in memory for a while."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from threading import Lock
from typing import Generic, TypeVar

import numpy as np

from nearline.ranking import RankedUser
from serving.features import FeatureReader, Neighbours, StoreFailed, StoreLate, Trending
from serving.metrics import Metrics
from serving.reasons import Reason

_TRENDING_FOR = timedelta(seconds=10)
_NEIGHBOURS_FOR = timedelta(minutes=10)
"""They are written once a night."""

_ITEM_FEATURES_FOR = timedelta(minutes=5)
"""They change by the hour."""

_MOST_ITEMS = 50_000

T = TypeVar("T")


class TrendingList:
    """The trending list, read again when it is some seconds old; the last good one bridges."""

    def __init__(self, reader: FeatureReader) -> None:
        self._reader = reader
        self._last: Trending | None = None
        self._trouble: Reason | None = None
        self._read_at: datetime | None = None

    def at(self, now: datetime) -> tuple[Trending | None, Reason | None]:
        """The list that holds now, and why it could not be read if it could not."""
        if self._read_at is None or not timedelta(0) <= now - self._read_at < _TRENDING_FOR:
            self._trouble = self._read()
            self._read_at = now
        last = self._last
        return (last if last and now < last.expires else None), self._trouble

    def _read(self) -> Reason | None:
        try:
            self._last = self._reader.trending()
        except StoreLate:
            return Reason.STORE_LATE
        except StoreFailed:
            return Reason.STORE_FAILED
        return None


class _Kept(Generic[T]):
    """What was read of items lately, for so long. Safe to use from many threads."""

    def __init__(self, kept_for: timedelta) -> None:
        self._kept_for = kept_for
        self._kept: OrderedDict[str, tuple[datetime, T]] = OrderedDict()
        self._lock = Lock()

    def of(self, wanted: Sequence[str], now: datetime) -> dict[str, T]:
        """What holds still of the wanted items."""
        with self._lock:
            kept = {item_id: self._kept[item_id] for item_id in wanted if item_id in self._kept}
        return {
            item_id: found
            for item_id, (read_at, found) in kept.items()
            if timedelta(0) <= now - read_at < self._kept_for
        }

    def keep(self, read: Mapping[str, T], now: datetime) -> None:
        """Keep what was read now; the items not read for longest go first."""
        with self._lock:
            for item_id, found in read.items():
                self._kept[item_id] = now, found
                self._kept.move_to_end(item_id)
            while len(self._kept) > _MOST_ITEMS:
                self._kept.popitem(last=False)


class NeighbourLists:
    """Items that the same users touch, for the items asked for most lately."""

    def __init__(self, reader: FeatureReader, metrics: Metrics) -> None:
        self._reader = reader
        self._metrics = metrics
        self._kept: _Kept[Neighbours] = _Kept(_NEIGHBOURS_FOR)

    def of(self, item_ids: Sequence[str], now: datetime) -> Mapping[str, Neighbours]:
        """The neighbours of each item that has some; none, and counted, while the store fails."""
        wanted = list(dict.fromkeys(item_ids))
        found = self._kept.of(wanted, now)
        missing = [item_id for item_id in wanted if item_id not in found]
        if missing:
            found |= self._read(missing, now)
        return {item_id: neighbours for item_id, neighbours in found.items() if neighbours.item_ids}

    def _read(self, missing: Sequence[str], now: datetime) -> dict[str, Neighbours]:
        try:
            read = self._reader.neighbours(missing)
        except (StoreLate, StoreFailed) as error:
            self._metrics.source_failures.labels("cooccurrence", type(error).__name__).inc()
            return {}
        self._kept.keep(read, now)
        return read


class RankingFeatures:
    """What a ranker reads: of a user anew each time, of items from memory where it can."""

    def __init__(self, reader: FeatureReader) -> None:
        self._reader = reader
        self._kept: _Kept[np.ndarray] = _Kept(_ITEM_FEATURES_FOR)

    def of(
        self, user_id: str | None, item_ids: Sequence[str], now: datetime
    ) -> tuple[RankedUser, np.ndarray]:
        """A user, and the features of each item, float32 (items, ITEM_FEATURES).

        Raises StoreLate or StoreFailed.
        """
        found = self._kept.of(item_ids, now)
        missing = [item_id for item_id in item_ids if item_id not in found]
        user, read = self._reader.for_ranking(
            user_id, missing, keep=lambda rows: self._kept.keep(rows, now)
        )
        found |= read
        return user, np.array([found[item_id] for item_id in item_ids])
