"""Which release's vectors the online store holds, every one of them: the store itself tells.

A store that was emptied, or is another one now, holds none; so does one whose push has not ended.
Feast is not loaded for it: a run that has nothing to push should cost nothing.
"""

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from nearline.settings import settings

if TYPE_CHECKING:
    import redis

_TABLE = "pushed_release"
_SECONDS_TO_WAIT_FOR_A_LOCK = 30


def pushed_release() -> str | None:
    """The release whose vectors were pushed last and whole; None without one."""
    if settings().online_store == "redis":
        found = _redis().get(_key())
        return None if found is None else str(found)
    if not settings().feast_online.is_file():
        return None
    with closing(_sqlite()) as connection:
        (version,) = connection.execute(f"SELECT max(version) FROM {_TABLE}").fetchone()
    return None if version is None else str(version)


def tell_pushed(version: str | None) -> None:
    """From now on the store holds the vectors of `version`, or of none whole."""
    if settings().online_store == "redis":
        if version:
            _redis().set(_key(), version)
        else:
            _redis().delete(_key())
        return
    settings().feast_online.parent.mkdir(parents=True, exist_ok=True)
    with closing(_sqlite()) as connection, connection:
        connection.execute(f"DELETE FROM {_TABLE}")
        if version:
            connection.execute(f"INSERT INTO {_TABLE} VALUES (?)", (version,))


def _key() -> str:
    return f"{settings().feast_project}:pushed_release"


def _redis() -> "redis.Redis":
    import redis  # 0.15 s, which a store on SQLite need not pay

    return redis.Redis.from_url(settings().redis_url, decode_responses=True)


def _sqlite() -> sqlite3.Connection:
    path = settings().feast_online
    connection = sqlite3.connect(path, timeout=_SECONDS_TO_WAIT_FOR_A_LOCK)
    connection.execute(f"CREATE TABLE IF NOT EXISTS {_TABLE} (version TEXT)")
    return connection
