"""What many requests read alike from the online store, kept in memory for a while."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from threading import Lock
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from nearline.ranking import RankedUser
from serving.features import (
    FeatureReader,
    ForRanking,
    Neighbours,
    StoreFailed,
    StoreLate,
    Times,
    Trending,
)
from serving.metrics import Metrics
from serving.reasons import Reason

_TRENDING_FOR = timedelta(seconds=10)
_NEIGHBOURS_FOR = timedelta(minutes=10)
"""They are written once a night."""

_ITEM_FEATURES_FOR = timedelta(minutes=5)
"""They change by the hour."""

_USER_FEATURES_FOR = timedelta(minutes=1)

_MOST_KEPT = 50_000

_STRANGER: tuple[RankedUser, Times] = RankedUser.of({}), {}

T = TypeVar("T")


class TrendingList:
    """The trending list, read again when it is some seconds old; the last good one bridges.

    Safe to use from many threads: one of them reads, the others go on with the last one.
    """

    def __init__(self, reader: FeatureReader) -> None:
        self._reader = reader
        self._last: Trending | None = None
        self._trouble: Reason | None = None
        self._read_at: datetime | None = None
        self._reading = Lock()

    def at(self, now: datetime, *, read: bool = True) -> tuple[Trending | None, Reason | None]:
        """The list that holds now, and why it could not be read if it could not.

        Without `read` the store is not asked, and what was read before holds.
        """
        if read and self._is_due(now) and self._reading.acquire(blocking=self._read_at is None):
            try:
                if self._is_due(now):
                    self._trouble, self._read_at = self._read(), now
            finally:
                self._reading.release()
        last = self._last
        return (last if last and now < last.expires else None), self._trouble

    def _is_due(self, now: datetime) -> bool:
        return self._read_at is None or not timedelta(0) <= now - self._read_at < _TRENDING_FOR

    def _read(self) -> Reason | None:
        try:
            self._last = self._reader.trending()
        except (StoreLate, StoreFailed) as error:
            return error.reason
        return None


class _Kept(Generic[T]):
    """What was read of items, or of users, lately, for so long. Safe to use from many threads."""

    def __init__(self, kept_for: timedelta) -> None:
        self._kept_for = kept_for
        self._kept: OrderedDict[str, tuple[datetime, T]] = OrderedDict()
        self._lock = Lock()

    def of(self, wanted: Sequence[str], now: datetime) -> dict[str, T]:
        """What holds still of those wanted."""
        oldest, kept = now - self._kept_for, self._kept
        with self._lock:
            return {
                key: found[1]
                for key in wanted
                if (found := kept.get(key)) and oldest < found[0] <= now
            }

    def keep(self, read: Mapping[str, T], now: datetime) -> None:
        """Keep what was read now, and drop what holds no more."""
        with self._lock:
            for key, found in read.items():
                self._kept[key] = now, found
                self._kept.move_to_end(key)
            while self._kept and (len(self._kept) > _MOST_KEPT or self._is_over(now)):
                self._kept.popitem(last=False)

    def drop(self, unwanted: Callable[[str], bool]) -> None:
        """Drop what was read of those who are unwanted."""
        with self._lock:
            keys = list(self._kept)
        # To look up thousands takes a while, in which nobody is to wait for the lock.
        gone = [key for key in keys if unwanted(key)]
        with self._lock:
            for key in gone:
                self._kept.pop(key, None)

    def _is_over(self, now: datetime) -> bool:
        """Whether the time of what was read first is over."""
        read_at, _ = next(iter(self._kept.values()))
        return read_at <= now - self._kept_for


class Near(NamedTuple):
    """What the same users touch as some items, and why it could not be read if it could not."""

    lists: Mapping[str, Neighbours]
    trouble: Reason | None = None


class NeighbourLists:
    """Items that the same users touch, for the items asked for most lately."""

    def __init__(self, reader: FeatureReader, metrics: Metrics) -> None:
        self._reader = reader
        self._metrics = metrics
        self._kept: _Kept[Neighbours] = _Kept(_NEIGHBOURS_FOR)

    def of(self, item_ids: Iterable[str], now: datetime) -> Near:
        """The neighbours of each item that has some; a store that fails is counted."""
        wanted = list(dict.fromkeys(item_ids))
        found = self._kept.of(wanted, now)
        missing = [item_id for item_id in wanted if item_id not in found]
        read, trouble = self._read(missing, now) if missing else Near({})
        both = found | dict(read)
        return Near({item_id: near for item_id, near in both.items() if near.item_ids}, trouble)

    def _read(self, missing: Sequence[str], now: datetime) -> Near:
        try:
            read = self._reader.neighbours(missing)
        except (StoreLate, StoreFailed) as error:
            self._metrics.source_failures.labels("cooccurrence", type(error).__name__).inc()
            return Near({}, error.reason)
        self._kept.keep(read, now)
        return Near(read)


class RankingFeatures:
    """What a ranker reads of users and items, from memory where it can."""

    def __init__(self, reader: FeatureReader) -> None:
        self._reader = reader
        self._users: _Kept[tuple[RankedUser, Times]] = _Kept(_USER_FEATURES_FOR)
        self._items: _Kept[tuple[np.ndarray, Times]] = _Kept(_ITEM_FEATURES_FOR)

    def of(
        self, user_id: str | None, item_ids: Sequence[str], now: datetime
    ) -> tuple[RankedUser, np.ndarray, Times]:
        """A user, the features of each item, float32 (items, ITEM_FEATURES), and their times.

        Raises StoreLate or StoreFailed.
        """
        users = self._users.of([user_id] if user_id else [], now)
        items = self._items.of(item_ids, now)
        missing_users = [user_id] if user_id and not users else []
        missing_items = [item_id for item_id in item_ids if item_id not in items]
        if missing_users or missing_items:

            def keep(read: ForRanking) -> None:
                self._users.keep(read.users, now)
                self._items.keep(read.items, now)

            read = self._reader.for_ranking(missing_users, missing_items, keep=keep)
            users, items = users | read.users, items | read.items
        user, times = users.get(user_id, _STRANGER) if user_id else _STRANGER
        rows = [items[item_id] for item_id in item_ids]
        # Items that were read together share their times: most of a hundred are the same.
        told = {id(ts): ts for _, ts in rows}
        return user, np.array([row for row, _ in rows]), _newest([times, *told.values()])

    def forget(self, since: Callable[[str], datetime | None]) -> None:
        """Drop what was read of users who were forgotten; `since` tells when, if they were.

        Called when they ask, and when they are removed: what was read in between goes too.
        """
        self._users.drop(lambda user_id: since(user_id) is not None)


def _newest(found: Iterable[Times]) -> Times:
    """The newest time of each view."""
    newest: dict[str, datetime] = {}
    for times in found:
        for view, ts in times.items():
            newest[view] = max(ts, newest.get(view, ts))
    return newest
