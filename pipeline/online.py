"""The online store: Feast definitions applied, hours materialized, a release's vectors pushed.

Batch views follow one rule, on SQLite and on Redis: a row lands unless a newer row of its key is
stored (feature_repo/online_store.py). So hours may be materialized again, in any order: an older
hour never takes a key back in time, and a corrected row of the same hour replaces the first one.

Pushed vectors follow the release pointer instead: the last push wins, so that those of an older
release come back after a rollback. Each carries its release; a reader drops those of another. One
push runs at a time, and the store tells whose vectors it holds once the last of them is there.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from nearline.bundle import read_matrix, read_vocabulary
from nearline.errors import BadInput, StepFailed
from nearline.lake import Lake
from nearline.locks import alone
from nearline.pushed import tell_pushed
from nearline.releases import ReleaseStore
from nearline.schema import ITEM_ID, USER_ID
from nearline.settings import settings
from nearline.windows import Window

if TYPE_CHECKING:
    from feast import FeatureView

    from feature_repo.store import Store

log = logging.getLogger(__name__)

NIGHTLY = "item_neighbours"
"""The one batch view that is not written every hour: its dataset may have no such hour."""

_MICROSECOND = timedelta(microseconds=1)

_PUSHED_AT_ONCE = 20_000
"""Vectors: a push takes no more memory where there are millions of items."""


@dataclass(frozen=True)
class OnlineReport:
    """Rows that landed in the online store, for each feature view."""

    rows: dict[str, int]


@cache
def feature_store() -> "Store":
    """The Feast store of the settings, opened once for this process."""
    from feature_repo.store import open_store

    return open_store()


def apply_features() -> list[str]:
    """Register what feature_repo defines, and drop what it no longer does; returns the views.

    Changes nothing when nothing changed. Raises StepFailed when Feast cannot.
    """
    from feature_repo.definitions import OBJECTS
    from feature_repo.views import VIEWS

    store, names = feature_store(), [view.name for view in VIEWS]
    gone: list[Any] = [view for view in store.list_feature_views() if view.name not in names]
    with _feast("the definitions in feature_repo were not applied"):
        store.apply(OBJECTS, objects_to_delete=gone, partial=not gone)
    return names


def hourly_views() -> list[str]:
    """The batch views that are written every hour."""
    from feature_repo.views import BATCH_VIEWS

    return [view.name for view in BATCH_VIEWS if view.name != NIGHTLY]


def materialize(window: Window) -> OnlineReport:
    """Bring the hours of `window` from the lake into the online store, every batch view.

    So are the hours before it that late events of the window changed. Raises MissingPartition when
    features of the window are not complete, StepFailed when Feast cannot write. One run at a time.
    """
    from feature_repo.views import BATCH_VIEWS

    lake = Lake.open()
    for name in hourly_views():
        lake.require_complete(f"features/{name}", window)
    apply_features()
    return OnlineReport({view.name: _materialize_view(lake, view, window) for view in BATCH_VIEWS})


def materialize_neighbours(end: datetime) -> int:
    """Bring the item neighbours that hold from `end` on online; returns the rows that landed.

    Raises MissingPartition when they were not computed, StepFailed when Feast cannot write.
    """
    from feature_repo.views import item_neighbours

    lake, hour = Lake.open(), Window.trailing(end, hours=1)
    lake.require_complete(_dataset(item_neighbours), hour)
    apply_features()
    return _materialize_view(lake, item_neighbours, hour)


def _materialize_view(lake: Lake, view: "FeatureView", window: Window) -> int:
    landed = _landed()
    before = landed[view.name]
    lake.ledger(f"online/{view.name}").begin(window)
    changed = lake.changed(_dataset(view), window)
    with _feast(f"view {view.name} was not materialized for {changed}"):
        feature_store().materialize(_first(view, changed), window.end, feature_views=[view.name])
    rows = landed[view.name] - before
    lake.mark_complete(f"online/{view.name}", window, rows=rows)
    return rows


def _first(view: "FeatureView", window: Window) -> datetime:
    """The time of the first row to bring online: an expired one need not be.

    A row's time is the end of its hour, so the window's start belongs to the hour before.
    """
    start = window.end - view.ttl if view.ttl else window.start
    return max(window.start, start) + _MICROSECOND


def _landed() -> Counter[str]:
    """Rows that this process has written, by view."""
    return feature_store().online.landed


def _dataset(view: "FeatureView") -> str:
    return f"features/{view.name}"


def push_embeddings(
    version: str,
    user_ids: Sequence[str] = (),
    user_vectors: np.ndarray | None = None,
    *,
    known_until: datetime | None = None,
) -> OnlineReport:
    """Push a release's item vectors, and the user vectors that its encoder made.

    `user_vectors` is float32 (users, dim), one row for each of `user_ids`. All are timed at
    `known_until`, by default the end of the release's window: serving takes no vector that is older
    than what a user did. Waits for another push to end. Raises UnknownRelease for a version that is
    not in the store, CorruptRelease when one of its files was changed, BadInput when ids and
    vectors do not match, StepFailed when Feast cannot write.
    """
    release = ReleaseStore.open().load(version)
    release.verify()
    items = read_vocabulary(release.path).item_ids
    matrix = read_matrix(release.path)
    if user_vectors is None:
        user_vectors = np.empty((0, matrix.shape[1]), dtype=np.float32)
    for ids, vectors in ((items, matrix), (user_ids, user_vectors)):
        if vectors.shape != (len(ids), matrix.shape[1]):
            raise BadInput(
                f"release {version}: {len(ids)} ids and dimension {matrix.shape[1]} do not match "
                f"vectors of shape {vectors.shape}"
            )
    time = known_until or release.manifest.window_end
    with alone("online"):
        apply_features()
        tell_pushed(None)
        _push("item", ITEM_ID, items, matrix, version, time)
        _push("user", USER_ID, user_ids, user_vectors, version, time)
        tell_pushed(version)
    return OnlineReport({"item_embedding": len(items), "user_embedding": len(user_ids)})


def stored_of(user_ids: Sequence[str]) -> dict[str, list[str]]:
    """The views that hold a row of each user; none where nothing was ever brought online."""
    if not settings().feast_registry.is_file():
        return {user_id: [] for user_id in user_ids}
    config, views = feature_store().config, _user_views()
    with _feast("the online store was not searched"):
        held = [feature_store().online.holds(config, view, _user_keys(user_ids)) for view in views]
    return {
        user_id: sorted(v.name for v, there in zip(views, held, strict=True) if there[place])
        for place, user_id in enumerate(user_ids)
    }


def forget_users(user_ids: Sequence[str]) -> None:
    """Remove users from the online store, their vectors too, and what a killed read spilled.

    Raises StepFailed when the store cannot be written, or cannot be cleaned of what it held.
    """
    if settings().feast_registry.is_file():
        with _feast("users were not removed from the online store"):
            feature_store().online.forget(
                feature_store().config, _user_views(), _user_keys(user_ids)
            )
    shutil.rmtree(settings().home / "feast" / "spill", ignore_errors=True)


def expire_users(before: datetime) -> int:
    """Remove the rows of users that are timed before then; returns how many went, over all views.

    Raises StepFailed when the store cannot be read or written.
    """
    if not settings().feast_registry.is_file():
        return 0
    with _feast("old rows of users were not removed from the online store"):
        return feature_store().online.expire(feature_store().config, _user_views(), before)


def _user_views() -> list["FeatureView"]:
    return [view for view in feature_store().list_feature_views() if view.join_keys == [USER_ID]]


def _user_keys(user_ids: Sequence[str]) -> list[bytes]:
    from feature_repo.wire import encode_keys

    keys: list[bytes] = encode_keys(USER_ID, pa.array(user_ids, pa.string())).to_pylist()
    return keys


def _push(
    entity: str, key: str, ids: Sequence[str], vectors: np.ndarray, version: str, time: datetime
) -> None:
    import pandas as pd
    from feast.data_source import PushMode

    for start in range(0, len(ids), _PUSHED_AT_ONCE):
        part = slice(start, start + _PUSHED_AT_ONCE)
        rows = pd.DataFrame(
            {
                key: list(ids[part]),
                "release": version,
                "embedding": list(np.asarray(vectors[part], dtype=np.float32)),
                "event_timestamp": pd.Timestamp(time),
            }
        )
        with _feast(f"{entity} vectors of {version} were not pushed"):
            feature_store().push(f"{entity}_embedding_push", rows, to=PushMode.ONLINE)
    last_hour = Window.of_hour(time - timedelta.resolution)
    Lake.open().mark_complete(f"online/{entity}_embedding", last_hour, rows=len(ids))


@contextmanager
def _feast(failure: str) -> Iterator[None]:
    """Keeps what Feast prints out of ours, and tells what failed when it does."""
    printed = StringIO()
    try:
        with redirect_stdout(printed):
            yield
    except Exception as error:  # Feast and each of its stores have errors of their own
        raise StepFailed(f"{failure}: {error}") from error
    finally:
        log.debug(printed.getvalue())
