"""The online store as serving reads it: in one thread, with a deadline.

Feast's SQLite connection belongs to one thread at a time, and a read of any store may hang. So one
thread reads, requests wait for it no longer than the deadline, and a read that nobody waits for any
more is dropped before it begins.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from nearline.errors import NearlineError
from nearline.ranking import ITEM_FEATURES, USER_FEATURES, RankedUser, named, numbers
from nearline.schema import ITEM_ID, USER_ID
from nearline.sequence import History
from nearline.settings import settings

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
_OWN_VIEWS = ("user_sequence", "user_embedding")
_NO_TTL = timedelta(days=3650)
_TRENDING = ["trending:item_ids", "trending:scores"]
_NEIGHBOURS = ["item_neighbours:neighbour_ids", "item_neighbours:scores"]


class StoreLate(NearlineError):
    """The online store did not answer within the deadline."""


class StoreFailed(NearlineError):
    """The online store could not be read."""


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
    """Items that the same users touch as one item, most often first; empty when none are known."""

    item_ids: Sequence[str] = ()
    scores: Sequence[float] = ()


class ForRanking(NamedTuple):
    """What a ranker reads of users, and of items: ITEM_FEATURES of each, float32."""

    users: dict[str, RankedUser]
    items: dict[str, np.ndarray]


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
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feature-reader")
        self._store: Store | None = None

    @classmethod
    def open(cls) -> "FeatureReader":
        """A reader of the online store that the settings name."""
        return cls(_feast_store, deadline_ms=settings().feature_deadline_ms)

    def warm(self) -> None:
        """Open the store and read once, however long it takes, so that requests need not."""
        try:
            self._thread.submit(self._trending).result()
        except Exception as error:
            log.warning("the online store cannot be read yet: %s", error)

    def close(self) -> None:
        """Stop the reading thread; a read under way is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def user(self, user_id: str) -> UserFeatures:
        """What is known of a user. Raises StoreLate or StoreFailed."""
        return self._within_deadline(lambda: self._user(user_id))

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
        future = self._thread.submit(read)
        try:
            return future.result(self._deadline_s)
        except TimeoutError as error:
            future.cancel()
            raise StoreLate(f"no answer in {self._deadline_s * 1000:.0f} ms") from error
        except Exception as error:  # each store has errors of its own
            log.warning("the online store failed: %s", error)
            raise StoreFailed(str(error)) from error

    def _opened(self) -> "Store":
        if self._store is None:
            self._store = self._open_store()
        return self._store

    def _read(self, features: list[str], keys: list[dict[str, str]]) -> dict[str, list[Any]]:
        """Columns of values, one value for each key; `<feature>__ts` holds the rows' times."""
        return self._opened().read(features, keys)

    def _read_one(self, features: list[str], key: dict[str, str]) -> dict[str, Any]:
        return {name: values[0] for name, values in self._read(features, [key]).items()}

    def _user(self, user_id: str) -> UserFeatures:
        row = self._read_one(_USER, {USER_ID: user_id})
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
        columns = self._read(_NEIGHBOURS, [{ITEM_ID: item_id} for item_id in item_ids])
        lists = (columns[f"item_neighbours__{name}"] for name in ("neighbour_ids", "scores"))
        rows = zip(item_ids, *lists, strict=True)
        return {item_id: Neighbours(ids or (), scores or ()) for item_id, ids, scores in rows}

    def _for_ranking(
        self,
        user_ids: Sequence[str],
        item_ids: Sequence[str],
        keep: Callable[[ForRanking], None],
    ) -> ForRanking:
        users = {
            user_id: RankedUser.of(self._read_one(list(USER_FEATURES), {USER_ID: user_id}))
            for user_id in user_ids
        }
        found = ForRanking(users, self._item_rows(item_ids) if item_ids else {})
        keep(found)
        return found

    def _item_rows(self, item_ids: Sequence[str]) -> dict[str, np.ndarray]:
        columns = self._read(list(ITEM_FEATURES), [{ITEM_ID: item_id} for item_id in item_ids])
        rows = np.column_stack([numbers(columns[named(name)]) for name in ITEM_FEATURES])
        return dict(zip(item_ids, rows, strict=True))


def _time(row: Mapping[str, Any], feature: str) -> datetime:
    return datetime.fromtimestamp(row[f"{feature}__ts"], UTC)


def _feast_store() -> "Store":
    # Feast would write an empty registry where there is none, and race the first `feast apply`.
    if not settings().feast_registry.is_file():
        raise StoreFailed(
            f"no feature is registered at {settings().feast_registry}: run the hourly features"
        )
    from feature_repo.store import open_store

    return open_store()
