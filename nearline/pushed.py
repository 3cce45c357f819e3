"""Which release's vectors the online store holds, every one of them: the store itself tells.

A store that was emptied, or is another one now, holds none; so does one whose push has not ended.
Feast is not loaded for it: a run that has nothing to push should cost nothing.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from nearline.errors import StepFailed
from nearline.redis_client import open_redis
from nearline.settings import settings

_TABLE = "pushed_release"
_SECONDS_TO_WAIT_FOR_A_LOCK = 30


def pushed() -> str | None:
    """The release whose vectors were pushed last and whole; None without one.

    Raises StepFailed when the store cannot be read.
    """
    with _failing("the online store was not read"):
        found = _told_by_redis() if settings().online_store == "redis" else _told_by_sqlite()
        return None if found is None else str(found)


def tell_pushed(version: str | None) -> None:
    """From now on the store holds the vectors of `version`, or of none whole.

    Raises StepFailed when the store cannot be written.
    """
    with _failing("the online store was not told whose vectors it holds"):
        if settings().online_store == "redis":
            _tell_redis(version)
        else:
            _tell_sqlite(version)


@contextmanager
def _failing(failure: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each store has errors of its own
        raise StepFailed(f"{failure}: {error}") from error


def _told_by_redis() -> object:
    return open_redis().get(_key())


def _tell_redis(version: str | None) -> None:
    if version:
        open_redis().set(_key(), version)
    else:
        open_redis().delete(_key())


def _told_by_sqlite() -> object:
    if not settings().feast_online.is_file():
        return None
    with closing(_sqlite()) as connection:
        (version,) = connection.execute(f"SELECT max(version) FROM {_TABLE}").fetchone()
    return version


def _tell_sqlite(version: str | None) -> None:
    settings().feast_online.parent.mkdir(parents=True, exist_ok=True)
    with closing(_sqlite()) as connection, connection:
        connection.execute(f"DELETE FROM {_TABLE}")
        if version:
            connection.execute(f"INSERT INTO {_TABLE} VALUES (?)", (version,))


def _key() -> str:
    return f"{settings().feast_project}:pushed_release"


def _sqlite() -> sqlite3.Connection:
    path = settings().feast_online
    connection = sqlite3.connect(path, timeout=_SECONDS_TO_WAIT_FOR_A_LOCK)
    connection.execute(f"CREATE TABLE IF NOT EXISTS {_TABLE} (version TEXT)")
    return connection
