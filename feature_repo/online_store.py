"""Feast's online store, SQLite or Redis by the settings, under one rule.

**A row lands unless a newer one of its key is stored.** So an older hour that is computed again
never moves a key back in time, and a corrected row of the same hour replaces the first. Feast's own
SQLite store breaks the first half of the rule, its Redis store the second.

A store has one writer at a time (the online pool): the check and the write are two steps.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from types import new_class
from typing import Any, Literal
from urllib.parse import urlsplit

from feast import FeatureView, RepoConfig
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.utils import make_tzaware
from pydantic import Field

from nearline.settings import settings

OnlineRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
_STORE, _CONFIG = "SettingsOnlineStore", "SettingsOnlineStoreConfig"
_TYPE = "feature_repo.online_store.SettingsOnlineStore"
_KEYS_PER_READ = 500
_SECONDS_TO_WAIT_FOR_A_LOCK = 30


def newest_rows(
    rows: Sequence[OnlineRow], stored: Callable[[list[EntityKey]], list[datetime | None]]
) -> Iterator[OnlineRow]:
    """One row for each key, the newest, and only where `stored` has no newer time for the key."""
    newest: dict[bytes, OnlineRow] = {}
    for row in rows:
        key = row[0].SerializeToString(deterministic=True)
        if key not in newest or make_tzaware(row[2]) >= make_tzaware(newest[key][2]):
            newest[key] = row
    kept = list(newest.values())
    for at in range(0, len(kept), _KEYS_PER_READ):
        chunk = kept[at : at + _KEYS_PER_READ]
        for row, time in zip(chunk, stored([row[0] for row in chunk]), strict=True):
            if time is None or make_tzaware(row[2]) >= make_tzaware(time):
                yield row


class NeverBack:
    """Puts the rule before a store's own writing; `landed` counts the rows written of each view.

    Pushed views are outside the rule: the last push wins, as a rollback to an older release needs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.landed: Counter[str] = Counter()

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[OnlineRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        if table.stream_source is None:
            data = self._newest(config, table, data)
        super().online_write_batch(config, table, data, progress)  # type: ignore[misc]
        self.landed[table.name] += len(data)

    def _newest(
        self, config: RepoConfig, table: FeatureView, data: list[OnlineRow]
    ) -> list[OnlineRow]:
        probe = [table.features[0].name]

        def stored(keys: list[EntityKey]) -> list[datetime | None]:
            found = self.online_read(config, table, keys, probe)  # type: ignore[attr-defined]
            return [time for time, _ in found]

        return list(newest_rows(data, stored))


class NeverBackSqlite(NeverBack, SqliteOnlineStore):
    """The SQLite file that the settings name, open for readers while one process writes."""

    @staticmethod
    def _get_db_path(config: RepoConfig) -> str:
        return str(config.online_store.path)

    def _get_conn(self, config: RepoConfig) -> sqlite3.Connection:
        if self._conn is None:
            settings().feast_online.parent.mkdir(parents=True, exist_ok=True)
            connection: sqlite3.Connection = super()._get_conn(config)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA busy_timeout={_SECONDS_TO_WAIT_FOR_A_LOCK * 1000}")
        return super()._get_conn(config)


class NeverBackRedis(NeverBack, RedisOnlineStore):
    """The Redis that the settings name."""


class NeverBackSqliteConfig(SqliteOnlineStoreConfig):
    """SQLite where the settings say."""

    type: Literal["feature_repo.online_store.SettingsOnlineStore"] = _TYPE  # type: ignore[assignment]
    path: str = Field(default_factory=lambda: str(settings().feast_online))


class NeverBackRedisConfig(RedisOnlineStoreConfig):
    """Redis where the settings say. Feast's own check of times is off: ours stands before it."""

    type: Literal["feature_repo.online_store.SettingsOnlineStore"] = _TYPE  # type: ignore[assignment]
    connection_string: str = Field(default_factory=lambda: connection_string(settings().redis_url))
    skip_dedup: bool = True


def connection_string(url: str) -> str:
    """A Redis URL (redis[s]://[user:password@]host[:port][/db]) as Feast writes it."""
    parts = urlsplit(url)
    options = {
        "db": parts.path.strip("/"),
        "username": parts.username,
        "password": parts.password,
        "ssl": "true" if parts.scheme == "rediss" else None,
    }
    given = [f"{name}={value}" for name, value in options.items() if value]
    return ",".join([f"{parts.hostname}:{parts.port or 6379}", *given])


def __getattr__(name: str) -> type:
    """The store or its config by the name in feature_store.yaml, as the settings choose now.

    Feast goes by the names of class and module, hence a class of that name in this module.
    """
    chosen = {
        "sqlite": {_STORE: NeverBackSqlite, _CONFIG: NeverBackSqliteConfig},
        "redis": {_STORE: NeverBackRedis, _CONFIG: NeverBackRedisConfig},
    }[settings().online_store]
    if name not in chosen:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return new_class(name, (chosen[name],), exec_body=lambda body: body.update(__module__=__name__))
