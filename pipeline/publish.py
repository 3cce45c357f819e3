"""The users whose vectors go online with a release: those who were active in the last days.

They are encoded by what serves them, so a stored vector is the one that a request would get.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from nearline.intake import closed_early
from nearline.lake import Lake
from nearline.releases import ReleaseStore
from nearline.schema import USER_ID
from nearline.sequence import History, ModelInput, Vocabulary, microseconds, model_input
from nearline.settings import settings
from nearline.windows import HOUR, Window, without
from serving.release import LoadedRelease

USER_SEQUENCE = "features/user_sequence"
_COLUMNS = pa.schema(
    [
        (USER_ID, pa.string()),
        ("item_ids", pa.list_(pa.string())),
        ("event_types", pa.list_(pa.string())),
        ("event_ts", pa.list_(pa.int64())),
        ("values", pa.list_(pa.float64())),
    ]
)
_BATCH = 256
_HOURS_AT_ONCE = 6


class ActiveUsers(NamedTuple):
    """Users, their vectors, float32 (users, dim), and until when these know what arrived."""

    ids: list[str]
    vectors: np.ndarray
    known_until: datetime


def active_users(version: str) -> ActiveUsers:
    """The users of the last NEARLINE_ACTIVE_DAYS.

    Days count back from the end of the release's window, which is also the moment that the vectors
    are for. A user of whom the release knows nothing has none.
    """
    release = LoadedRelease.load(ReleaseStore.open().load(version), encoder=settings().encoder)
    end = release.manifest.window_end
    days = Window.trailing(end, hours=24 * settings().active_days)
    known = known_until(end)  # before they are read: what is closed meanwhile may not be in them
    inputs = dict(_known(release.vocabulary, _newest(days), end, release.length))
    users, batches = list(inputs), list(inputs.values())
    parts = [batches[at : at + _BATCH] for at in range(0, len(batches), _BATCH)]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        vectors = list(pool.map(release.encode, parts))
    none = np.empty((0, release.dim), dtype=np.float32)
    return ActiveUsers(users, np.concatenate([none, *vectors]), known)


def known_until(end: datetime) -> datetime:
    """Until when sequences that are read from now on know what arrived before the end of an hour.

    The hour may have been closed early. Where it is stale nobody can tell any more when that was:
    then they are taken to know nothing of it.
    """
    hour = Window.trailing(end, hours=1)
    closed = closed_early()  # before the ledger: hours are made stale, then closed
    if without([hour], Lake.open().ledger(USER_SEQUENCE).stale()) != [hour]:
        return hour.start
    return closed if closed is not None and hour.contains(closed) else end


def _newest(window: Window) -> dict[str, History]:
    """The newest sequence of each user that was active in `window`.

    Read from its end back, some hours at a time: a busy user has a row in every hour.
    """
    lake, found, end = Lake.open(), dict[str, History](), window.end
    while end > window.start:
        part = Window(max(window.start, end - _HOURS_AT_ONCE * HOUR), end)
        rows = lake.read(USER_SEQUENCE, part, schema=_COLUMNS)
        last = {user: at for at, user in enumerate(rows[USER_ID].to_pylist())}
        new = [at for user, at in last.items() if user not in found]
        for row in rows.take(pa.array(new, pa.int64())).to_pylist():
            found[row[USER_ID]] = History(*(row[name] for name in History._fields))
        end = part.start
    return found


def _known(
    vocabulary: Vocabulary, histories: dict[str, History], at: datetime, length: int
) -> Iterator[tuple[str, ModelInput]]:
    now_us = microseconds(at)
    for user_id, history in histories.items():
        told = model_input(history, vocabulary, now_us=now_us, length=length)
        if len(told.items):
            yield user_id, told
