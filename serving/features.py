"""The online store as serving reads it: in one thread, with a deadline.

Feast's SQLite connection belongs to one thread at a time, and a read of any store may hang. So one
thread reads, requests wait for it no longer than the deadline, and a read that nobody waits for any
more is dropped before it begins. A store that is late again and again is left alone for a second:
requests that wait for what does not come would keep all others waiting.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from nearline.errors import NearlineError
from nearline.ranking import ITEM_FEATURES, USER_FEATURES, RankedUser, named, numbers
from nearline.schema import ITEM_ID, USER_ID
from nearline.sequence import History
from nearline.settings import settings
from serving.errands import Errands
from serving.logs import told
from serving.reasons import Reason

if TYPE_CHECKING:
    from feature_repo.store import Store

log = logging.getLogger(__name__)
T = TypeVar("T")

EMPTY = History((), (), (), ())

_USER = [
    *(f"user_sequence:{name}" for name in History._fields),
    "user_sequence:taken_item_ids",
    *(f"user_embedding:{name}" for name in ("release", "embedding")),
]
_USERS_AT_ONCE = 20
_LATE_IN_A_ROW = 3
_LEFT_ALONE_S = 1.0
_TS = "__ts"
_OWN_VIEWS = ("user_sequence", "user_embedding")
_NO_TTL = timedelta(days=3650)
_TRENDING = ["trending:item_ids", "trending:scores"]
_NEIGHBOURS = ["item_neighbours:neighbour_ids", "item_neighbours:scores"]


class StoreLate(NearlineError):
    """The online store did not answer within the deadline."""

    reason = Reason.STORE_LATE


class StoreFailed(NearlineError):
    """The online store could not be read."""

    reason = Reason.STORE_FAILED


@dataclass(frozen=True)
class StoredVector:
    """A pushed user vector, float32 (dim,): of which release, made of the events before `ts`."""

    release: str
    vector: np.ndarray
    ts: datetime


@dataclass(frozen=True)
class UserFeatures:
    """What the online store knows of a user; an empty history and None for a stranger.

    `taken` are the items never to be shown again; `times` says up to when each view that has a row
    was known.
    """

    history: History = EMPTY
    vector: StoredVector | None = None
    times: Mapping[str, datetime] = field(default_factory=dict)
    taken: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Trending:
    """What the whole site touches, best first, as it stood at `ts`; it holds until `expires`."""

    item_ids: tuple[str, ...]
    scores: tuple[float, ...]
    ts: datetime
    expires: datetime


class Neighbours(NamedTuple):
    """Items that the same users touch as one item, most often first; empty when none are known.

    `ts` is up to when they were known.
    """

    item_ids: Sequence[str] = ()
    scores: Sequence[float] = ()
    ts: datetime | None = None


Times = Mapping[str, datetime]
"""Up to when each feature view was known, of those that have a row."""


class ForRanking(NamedTuple):
    """What a ranker reads of users, and of items: ITEM_FEATURES of each, float32.

    Each is paired with the times of what was read.
    """

    users: dict[str, tuple[RankedUser, Times]]
    items: dict[str, tuple[np.ndarray, Times]]


class Profile(NamedTuple):
    """One feature view's row of a user, and up to when it was known."""

    ts: datetime
    values: dict[str, Any]


class FeatureReader:
    """Reads the feature views that requests need.

    `open_store` makes the Feast store, in the reading thread and at the first read.
    """

    def __init__(self, open_store: Callable[[], "Store"], *, deadline_ms: int) -> None:
        self._open_store = open_store
        self._deadline_s = deadline_ms / 1000
        self._thread = Errands("feature-reader")
        self._store: Store | None = None
        self._late = 0
        self._left_alone_until = 0.0

    @classmethod
    def open(cls) -> "FeatureReader":
        """A reader of the online store that the settings name."""
        return cls(_feast_store, deadline_ms=settings().feature_deadline_ms)

    def warm(self) -> bool:
        """Open the store and read once, however long it takes, so that requests need not.

        Returns whether it holds anything: every hour that is brought online has a trending list.
        """
        try:
            return self._thread.submit(self._trending).result() is not None
        except Exception as error:
            log.warning("the online store cannot be read yet: %s", told(error))
            return False

    def close(self) -> None:
        """Stop the reading thread; a read under way is not waited for, nor does the process."""
        self._thread.close()

    def user(self, user_id: str) -> UserFeatures:
        """What is known of a user. Raises StoreLate or StoreFailed."""
        return self.users([user_id])[user_id]

    def users(self, user_ids: Sequence[str]) -> dict[str, UserFeatures]:
        """What is known of each user, in as few reads as let others read in between.

        Raises StoreLate or StoreFailed, at the first read that is late or fails.
        """
        found: dict[str, UserFeatures] = {}
        for at in range(0, len(user_ids), _USERS_AT_ONCE):
            some = user_ids[at : at + _USERS_AT_ONCE]
            found |= self._within_deadline(partial(self._users, some))
        return found

    def profile(self, user_id: str) -> dict[str, Profile]:
        """The row of every feature view of users that has one. Raises StoreLate or StoreFailed."""
        return self._within_deadline(lambda: self._profile(user_id))

    def trending(self) -> Trending | None:
        """The site's trending items, if there are any. Raises StoreLate or StoreFailed."""
        return self._within_deadline(self._trending)

    def neighbours(self, item_ids: Sequence[str]) -> dict[str, Neighbours]:
        """What the same users touch as each item, in one read. Raises StoreLate or StoreFailed."""
        return self._within_deadline(lambda: self._neighbours(item_ids))

    def for_ranking(
        self,
        user_ids: Sequence[str],
        item_ids: Sequence[str],
        *,
        keep: Callable[[ForRanking], None],
    ) -> ForRanking:
        """What a ranker reads of users and items, in one go.

        It is given to `keep` too, even where it comes too late for this request. Raises StoreLate
        or StoreFailed.
        """
        return self._within_deadline(lambda: self._for_ranking(user_ids, item_ids, keep))

    def _within_deadline(self, read: Callable[[], T]) -> T:
        if time.monotonic() < self._left_alone_until:
            raise StoreLate("no answer in time, again and again: the store is left alone")
        future = self._thread.submit(read)
        try:
            found = future.result(self._deadline_s)
        except TimeoutError as error:
            future.cancel()
            self._was_late()
            raise StoreLate(f"no answer in {self._deadline_s * 1000:.0f} ms") from error
        except Exception as error:  # each store has errors of its own
            log.warning("the online store failed: %s", told(error))
            raise StoreFailed(told(error)) from error
        self._late = 0
        return found

    def _was_late(self) -> None:
        # Threads may miss each other's count; the next ones make up for it.
        self._late += 1
        if self._late >= _LATE_IN_A_ROW:
            self._left_alone_until = time.monotonic() + _LEFT_ALONE_S

    def _opened(self) -> "Store":
        if self._store is None:
            self._store = self._open_store()
        return self._store

    def _read(self, features: list[str], keys: list[dict[str, str]]) -> dict[str, list[Any]]:
        """Columns of values, one value for each key; `<feature>__ts` holds the rows' times."""
        return self._opened().read(features, keys)

    def _read_one(self, features: list[str], key: dict[str, str]) -> dict[str, Any]:
        return {name: values[0] for name, values in self._read(features, [key]).items()}

    def _read_each(
        self, features: Sequence[str], join_key: str, keys: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        """The row of each key, in one read."""
        columns = self._read(list(features), [{join_key: key} for key in keys])
        rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        return dict(zip(keys, rows, strict=True))

    def _users(self, user_ids: Sequence[str]) -> dict[str, UserFeatures]:
        rows = self._read_each(_USER, USER_ID, user_ids)
        return {user_id: _user_features(row) for user_id, row in rows.items()}

    def _profile(self, user_id: str) -> dict[str, Profile]:
        fields = {
            view.name: [field.name for field in view.features]
            for view in self._opened().list_feature_views()
            if view.entities == ["user"] and view.name not in _OWN_VIEWS
        }
        names = [f"{view}:{name}" for view, found in fields.items() for name in found]
        row = self._read_one(names, {USER_ID: user_id}) if names else {}
        return {
            view: Profile(
                _time(row, f"{view}__{found[0]}"), {name: row[f"{view}__{name}"] for name in found}
            )
            for view, found in fields.items()
            if row.get(f"{view}__{found[0]}__ts")
        }

    def _trending(self) -> Trending | None:
        row = self._read_one(_TRENDING, {"surface": "all"})
        if not row["trending__item_ids"]:
            return None
        ts = _time(row, "trending__item_ids")
        item_ids, scores = (tuple(row[f"trending__{name}"]) for name in ("item_ids", "scores"))
        view = self._opened().get_feature_view("trending")
        return Trending(item_ids, scores, ts, ts + (view.ttl or _NO_TTL))

    def _neighbours(self, item_ids: Sequence[str]) -> dict[str, Neighbours]:
        rows = self._read_each(_NEIGHBOURS, ITEM_ID, item_ids)
        return {item_id: _item_neighbours(row) for item_id, row in rows.items()}

    def _for_ranking(
        self,
        user_ids: Sequence[str],
        item_ids: Sequence[str],
        keep: Callable[[ForRanking], None],
    ) -> ForRanking:
        users = self._read_each(USER_FEATURES, USER_ID, user_ids) if user_ids else {}
        found = ForRanking(
            {user_id: (RankedUser.of(row), _times(row)) for user_id, row in users.items()},
            self._item_rows(item_ids) if item_ids else {},
        )
        keep(found)
        return found

    def _item_rows(self, item_ids: Sequence[str]) -> dict[str, tuple[np.ndarray, Times]]:
        columns = self._read(list(ITEM_FEATURES), [{ITEM_ID: item_id} for item_id in item_ids])
        rows = np.column_stack([numbers(columns[named(name)]) for name in ITEM_FEATURES])
        newest = _times({name: max(column) for name, column in columns.items() if _is_time(name)})
        return {item_id: (row, newest) for item_id, row in zip(item_ids, rows, strict=True)}


def _user_features(row: Mapping[str, Any]) -> UserFeatures:
    items, types, moments, values = (row[f"user_sequence__{name}"] for name in History._fields)
    release, vector = (row[f"user_embedding__{name}"] for name in ("release", "embedding"))
    history, stored, times = EMPTY, None, {}
    if items:
        history = History(items, types, moments, values or [0.0] * len(items))
        times["user_sequence"] = _time(row, "user_sequence__item_ids")
    if release and vector is not None:
        times["user_embedding"] = ts = _time(row, "user_embedding__release")
        stored = StoredVector(release, np.asarray(vector, dtype=np.float32), ts)
    taken = frozenset(row["user_sequence__taken_item_ids"] or ())
    return UserFeatures(history, stored, times, taken)


def _item_neighbours(row: Mapping[str, Any]) -> Neighbours:
    ids, scores = (row[f"item_neighbours__{name}"] for name in ("neighbour_ids", "scores"))
    return Neighbours(ids, scores, _time(row, "item_neighbours__scores")) if ids else Neighbours()


def _time(row: Mapping[str, Any], feature: str) -> datetime:
    return datetime.fromtimestamp(row[f"{feature}{_TS}"], UTC)


def _is_time(column: str) -> bool:
    return column.endswith(_TS)


def _times(row: Mapping[str, Any]) -> Times:
    """The time of each view in a row, by the columns `view__feature__ts`."""
    seconds = {column.split("__")[0]: ts for column, ts in row.items() if _is_time(column) and ts}
    return {view: datetime.fromtimestamp(ts, UTC) for view, ts in seconds.items()}


def _feast_store() -> "Store":
    # Feast would write an empty registry where there is none, and race the first `feast apply`.
    if not settings().feast_registry.is_file():
        raise StoreFailed(
            f"no feature is registered at {settings().feast_registry}: run the hourly features"
        )
    from feature_repo.store import open_store

    return open_store()
