"""Feast's online store, SQLite or Redis by the settings, under one rule.

**A row lands unless a newer one of its key is stored.** So an older hour that is computed again
never moves a key back in time, and a corrected row of the same hour replaces the first. Feast's own
SQLite store breaks the first half of the rule, its Redis store the second.

What is stored is what Feast's own stores would have written, byte for byte; only the writing is
ours, many rows at once. Except for times in SQLite: Feast's store writes UTC as if it were the time
on the wall of the process, and each process that reads takes off its own zone; ours stores the
moment. How far a materialization came is kept in the store too, written together
with the rows: one that was killed goes on there, and a store that was emptied begins anew.

A store has one writer at a time (the online pool): the check and the write are two steps.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import chain, islice, repeat
from types import new_class
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from feast import FeatureView, RepoConfig
from feast.infra.key_encoding_utils import deserialize_entity_key, serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3, compute_table_id
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import Field

from feature_repo.newest_rows import NewestRows
from feature_repo.rows import EncodedRows, ProtoRow
from nearline.errors import ConfigError, StepFailed
from nearline.redis_client import made_anew
from nearline.settings import settings

_STORE, _CONFIG = "SettingsOnlineStore", "SettingsOnlineStoreConfig"
_TYPE = "feature_repo.online_store.SettingsOnlineStore"
_KEYS_PER_READ = 500
_SECONDS_TO_WAIT_FOR_A_LOCK = 30
_CACHE_KIB = 64 * 1024
_MOMENTS = 1
"""`user_version` of a SQLite file whose times are moments; in older ones Feast's way is kept."""


Row = tuple[datetime | None, dict[str, Value] | None]
"""The time of a row, and its values by feature; None and None where there is no row."""


class Asked(NamedTuple):
    """What is read of one view: features by name."""

    view: FeatureView
    names: Sequence[str]


@dataclass(frozen=True)
class Progress:
    """How far one materialization of a view came: rows read, and how many of them landed."""

    run: str
    position: int = 0
    landed: int = 0


class NeverBack:
    """The rule, for any store that can tell the times of keys and write rows.

    `landed` counts the rows written of each view. Pushed views are outside the rule: the last push
    wins, as a rollback to an older release needs.
    """

    rows_per_batch: int
    with_texts = False

    def __init__(self) -> None:
        super().__init__()
        self.landed: Counter[str] = Counter()

    def update(self, config: RepoConfig, *what: Any, **more: Any) -> None:
        """Take over definitions, as Feast has it. Raises ConfigError for another project."""
        _require_own(config)
        super().update(config, *what, **more)  # type: ignore[misc]

    def teardown(self, config: RepoConfig, *what: Any, **more: Any) -> None:
        """Remove all, as Feast has it. Raises ConfigError for another project."""
        _require_own(config)
        super().teardown(config, *what, **more)  # type: ignore[misc]

    def materialize(self, config: RepoConfig, view: FeatureView, rows: NewestRows) -> None:
        """Write rows batch by batch; the same rows that were begun before are gone on with.

        Raises ConfigError for another project than that of the settings.
        """
        _require_own(config)
        run = rows.fingerprint()
        done = self._load_progress(config, view)
        if done is None or done.run != run:
            done = Progress(run)
        for position, batch in rows.batches(size=self.rows_per_batch, skip=done.position):
            encoded = EncodedRows.of_batch(view, batch, with_texts=self.with_texts)
            landing = self._not_older(config, view, encoded)
            done = Progress(run, position, done.landed + len(landing.keys))
            self._write(config, view, landing, done)
        self._forget_progress(config, view)
        self.landed[view.name] += done.landed

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[ProtoRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Rows that Feast hands over, such as those of a push."""
        rows = EncodedRows.of_protos(table, data)
        if table.stream_source is None:
            rows = self._not_older(config, table, rows)
        self._write(config, table, rows)
        self.landed[table.name] += len(rows.keys)
        if progress:
            progress(len(data))

    def read_views(
        self, config: RepoConfig, asked: Sequence[Asked], keys: Sequence[bytes]
    ) -> list[list[Row]]:
        """The rows of each view, one for each of the entity keys."""
        raise NotImplementedError

    def holds(self, config: RepoConfig, view: FeatureView, keys: list[bytes]) -> list[bool]:
        """Whether a row of a view is stored, for each entity key."""
        return [time is not None for time in self._stored_times(config, view, keys)]

    def forget(self, config: RepoConfig, views: Sequence[FeatureView], keys: list[bytes]) -> None:
        """Remove all rows of entity keys, from every view of their entity: Feast has no such call.

        Nothing of them is left in the store's files. Raises StepFailed where that fails.
        """
        raise NotImplementedError

    def expire(self, config: RepoConfig, views: Sequence[FeatureView], before: datetime) -> int:
        """Remove the rows of views whose time is before then; returns how many went."""
        raise NotImplementedError

    def _not_older(self, config: RepoConfig, view: FeatureView, rows: EncodedRows) -> EncodedRows:
        stored = self._stored_times(config, view, rows.keys)
        return rows.where(
            [known is None or time >= known for time, known in zip(rows.times, stored, strict=True)]
        )

    def _stored_times(
        self, config: RepoConfig, view: FeatureView, keys: list[bytes]
    ) -> list[datetime | None]:
        raise NotImplementedError

    def _write(
        self, config: RepoConfig, view: FeatureView, rows: EncodedRows, done: Progress | None = None
    ) -> None:
        raise NotImplementedError

    def _load_progress(self, config: RepoConfig, view: FeatureView) -> Progress | None:
        raise NotImplementedError

    def _forget_progress(self, config: RepoConfig, view: FeatureView) -> None:
        raise NotImplementedError


def _require_own(config: RepoConfig) -> None:
    """Feast's own command goes by a file; another tenant's rows may have that file's project."""
    project = settings().feast_project
    if config.project != project:
        raise ConfigError(
            f"feature_store.yaml says `project: {config.project}`, and NEARLINE_FEAST_PROJECT is "
            f"{project!r}: have FEAST_FS_YAML_FILE_PATH name a copy of it with `project: {project}`"
        )


class NeverBackSqlite(NeverBack, SqliteOnlineStore):
    """The SQLite file that the settings name, open for readers while one process writes."""

    rows_per_batch = 10_000
    with_texts = True

    @staticmethod
    def _get_db_path(config: RepoConfig) -> str:
        return str(config.online_store.path)

    def _get_conn(self, config: RepoConfig) -> sqlite3.Connection:
        if self._conn is None:
            settings().feast_online.parent.mkdir(parents=True, exist_ok=True)
            connection: sqlite3.Connection = super()._get_conn(config)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
            connection.execute(f"PRAGMA busy_timeout={_SECONDS_TO_WAIT_FOR_A_LOCK * 1000}")
        return super()._get_conn(config)

    def update(self, config: RepoConfig, *what: Any, **more: Any) -> None:
        """As the rule has it, and puts right the times of a store that was begun before."""
        super().update(config, *what, **more)
        connection = self._get_conn(config)
        if connection.execute("PRAGMA user_version").fetchone() != (_MOMENTS,):
            with connection:
                _store_moments(connection)

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Row]:
        """What Feast asks for."""
        names = requested_features or [feature.name for feature in table.features]
        version = config.entity_key_serialization_version
        keys = [serialize_entity_key(key, version) for key in entity_keys]
        [rows] = self.read_views(config, [Asked(table, names)], keys)
        return rows

    def read_views(
        self, config: RepoConfig, asked: Sequence[Asked], keys: Sequence[bytes]
    ) -> list[list[Row]]:
        """One statement for all views; only what is asked for is decoded."""
        marks = ",".join(f"?{place}" for place in range(1, len(keys) + 1))
        # A time without its declared type comes as it is stored, not through Feast's converter.
        every = " UNION ALL ".join(
            f"SELECT {place}, entity_key, feature_name, value, +event_ts "
            f"FROM {_table(config, each.view)} WHERE entity_key IN ({marks})"
            for place, each in enumerate(asked)
        )
        wanted = [set(each.names) for each in asked]
        stamps: list[dict[bytes, int]] = [{} for _ in asked]
        found: list[dict[bytes, dict[str, Value]]] = [{} for _ in asked]
        for place, key, name, value, stamp in self._get_conn(config).execute(every, keys):
            stamps[place][key] = stamp
            if name in wanted[place]:
                found[place].setdefault(key, {})[name] = Value.FromString(value)
        return [
            [(_time(told[key]), values.get(key)) if key in told else (None, None) for key in keys]
            for told, values in zip(stamps, found, strict=True)
        ]

    def _stored_times(
        self, config: RepoConfig, view: FeatureView, keys: list[bytes]
    ) -> list[datetime | None]:
        table = _table(config, view)
        found: dict[bytes, int] = {}
        for at in range(0, len(keys), _KEYS_PER_READ):
            some = keys[at : at + _KEYS_PER_READ]
            found |= dict(
                self._get_conn(config).execute(
                    f"SELECT entity_key, max(event_ts) FROM {table} "
                    f"WHERE entity_key IN ({','.join('?' * len(some))}) GROUP BY entity_key",
                    some,
                )
            )
        times = {stamp: _time(stamp) for stamp in set(found.values())}
        return [times[found[key]] if key in found else None for key in keys]

    def forget(self, config: RepoConfig, views: Sequence[FeatureView], keys: list[bytes]) -> None:
        connection = self._get_conn(config)
        with connection:
            for view in views:
                connection.executemany(
                    f"DELETE FROM {_table(config, view)} WHERE entity_key = ?",
                    [(key,) for key in keys],
                )
        # A deleted row, and a row that grew and moved, stay in the file until it is written anew.
        connection.execute("VACUUM")
        [(busy, *_)] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if busy:
            raise StepFailed(
                f"{settings().feast_online} is being read, so that its log still holds what was "
                "removed: run this again"
            )

    def expire(self, config: RepoConfig, views: Sequence[FeatureView], before: datetime) -> int:
        connection, removed, old = self._get_conn(config), 0, (_stamp(before),)
        for view in views:
            table = _table(config, view)
            with connection:
                [(rows,)] = connection.execute(
                    f"SELECT count(DISTINCT entity_key) FROM {table} WHERE event_ts < ?", old
                )
                connection.execute(f"DELETE FROM {table} WHERE event_ts < ?", old)
            removed += rows
        return removed

    def _write(
        self, config: RepoConfig, view: FeatureView, rows: EncodedRows, done: Progress | None = None
    ) -> None:
        """One transaction; in the order of the table's primary key, so that its tree grows fast."""
        stamps = {time: _stamp(time) for time in set(rows.times)}
        times = [stamps[time] for time in rows.times]
        features = [
            zip(rows.keys, repeat(name), rows.values[name], rows.texts[name], times)
            for name in sorted(rows.values)
        ]
        with self._get_conn(config) as connection:
            connection.executemany(
                f"INSERT INTO {_table(config, view)} "
                "(entity_key, feature_name, value, value_text, event_ts) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (entity_key, feature_name) DO UPDATE SET value = excluded.value, "
                "value_text = excluded.value_text, event_ts = excluded.event_ts, created_ts = NULL",
                chain.from_iterable(zip(*features, strict=True)),
            )
            if done is not None:
                connection.execute(
                    "INSERT OR REPLACE INTO materialization_progress VALUES (?, ?)",
                    (view.name, json.dumps(asdict(done))),
                )

    def _load_progress(self, config: RepoConfig, view: FeatureView) -> Progress | None:
        connection = self._get_conn(config)
        connection.execute(
            "CREATE TABLE IF NOT EXISTS materialization_progress "
            "(view TEXT PRIMARY KEY, progress TEXT)"
        )
        found = connection.execute(
            "SELECT progress FROM materialization_progress WHERE view = ?", (view.name,)
        ).fetchone()
        return Progress(**json.loads(found[0])) if found else None

    def _forget_progress(self, config: RepoConfig, view: FeatureView) -> None:
        with self._get_conn(config) as connection:
            connection.execute("DELETE FROM materialization_progress WHERE view = ?", (view.name,))


def _table(config: RepoConfig, view: FeatureView) -> str:
    return f'"{compute_table_id(config.project, view)}"'


def _store_moments(connection: sqlite3.Connection) -> None:
    """Replace times of the clock on the wall by moments, once.

    The process that writes the store is the one whose wall it was.
    """
    tables = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND EXISTS "
        "(SELECT 1 FROM pragma_table_info(sqlite_master.name) AS its WHERE its.name = 'event_ts')"
    ).fetchall()
    moment = "CAST(strftime('%s', event_ts, 'unixepoch', 'localtime') AS INTEGER)"
    for (table,) in tables:
        connection.execute(f'UPDATE "{table}" SET event_ts = {moment} WHERE event_ts != {moment}')
    connection.execute(f"PRAGMA user_version = {_MOMENTS}")


def _stamp(time: datetime) -> int:
    return int(time.timestamp())


def _time(stamp: int) -> datetime:
    return datetime.fromtimestamp(stamp, UTC)


class NeverBackRedis(NeverBack, RedisOnlineStore):
    """The Redis that the settings name.

    A broken connection is made anew, a few times within a second. One that fell silent is given up,
    and the next call makes another.
    """

    rows_per_batch = 2_000

    def _get_client(self, online_store_config: RedisOnlineStoreConfig) -> Any:
        if self._client is None:
            client: Any = super()._get_client(online_store_config)
            client.set_retry(made_anew())
        return self._client

    def read_views(
        self, config: RepoConfig, asked: Sequence[Asked], keys: Sequence[bytes]
    ) -> list[list[Row]]:
        """One round trip for all views."""
        fields = [self._generate_hset_keys_for_features(view, list(names)) for view, names in asked]
        places = [_redis_key(config, key) for key in keys]
        commands = [(place, hashed) for _, hashed in fields for place in places]
        found = iter(self._read_hash_fields(config, commands))
        return [
            self._convert_redis_values_to_protobuf(list(islice(found, len(keys))), view.name, names)
            for (view, _), (names, _) in zip(asked, fields, strict=True)
        ]

    def _stored_times(
        self, config: RepoConfig, view: FeatureView, keys: list[bytes]
    ) -> list[datetime | None]:
        with self._get_client(config.online_store).pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hget(_redis_key(config, key), _time_field(view))
            found = pipe.execute()
        times = {raw: Timestamp.FromString(raw).ToDatetime(UTC) for raw in set(found) if raw}
        return [times.get(raw) for raw in found]

    def forget(self, config: RepoConfig, views: Sequence[FeatureView], keys: list[bytes]) -> None:
        # One hash holds the rows of an entity in all views.
        self._get_client(config.online_store).delete(*(_redis_key(config, key) for key in keys))

    def expire(self, config: RepoConfig, views: Sequence[FeatureView], before: datetime) -> int:
        """Goes through all keys, some hundreds at once."""
        found = self._get_client(config.online_store).scan_iter(
            match=f"*{config.project}", count=_KEYS_PER_READ, _type="hash"
        )
        removed, ours = 0, (key for key in found if _is_key_of(config, key))
        while keys := list(islice(ours, _KEYS_PER_READ)):
            removed += self._expire_keys(config, views, before, keys)
        return removed

    def _expire_keys(
        self,
        config: RepoConfig,
        views: Sequence[FeatureView],
        before: datetime,
        keys: Sequence[bytes],
    ) -> int:
        fields = {_time_field(view): _row_fields(view) for view in views}
        with self._get_client(config.online_store).pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hmget(key, list(fields))
            old = [
                (key, hashed)
                for key, stamps in zip(keys, pipe.execute(), strict=True)
                for raw, hashed in zip(stamps, fields.values(), strict=True)
                if raw and Timestamp.FromString(raw).ToDatetime(UTC) < before
            ]
            for key, hashed in old:
                pipe.hdel(key, *hashed)
            pipe.execute()
        return len(old)

    def _write(
        self, config: RepoConfig, view: FeatureView, rows: EncodedRows, done: Progress | None = None
    ) -> None:
        """One round trip; the progress comes last."""
        fields = [_time_field(view), *(_mmh3(f"{view.name}:{name}") for name in rows.values)]
        stamps = {time: _timestamp(time) for time in set(rows.times)}
        with self._get_client(config.online_store).pipeline(transaction=False) as pipe:
            times = (stamps[time] for time in rows.times)
            for key, *cells in zip(rows.keys, times, *rows.values.values(), strict=True):
                items = list(chain.from_iterable(zip(fields, cells, strict=True)))
                pipe.execute_command("HSET", _redis_key(config, key), *items)
            if done is not None:
                pipe.set(_progress_key(config, view), json.dumps(asdict(done)))
            pipe.execute()

    def _load_progress(self, config: RepoConfig, view: FeatureView) -> Progress | None:
        found = self._get_client(config.online_store).get(_progress_key(config, view))
        return Progress(**json.loads(found)) if found else None

    def _forget_progress(self, config: RepoConfig, view: FeatureView) -> None:
        self._get_client(config.online_store).delete(_progress_key(config, view))


def _redis_key(config: RepoConfig, entity_key: bytes) -> bytes:
    return entity_key + config.project.encode()


def _is_key_of(config: RepoConfig, key: bytes) -> bool:
    """Whether a key is an entity's and this project's: another's name may end like it."""
    try:
        entity = deserialize_entity_key(
            key.removesuffix(config.project.encode()), config.entity_key_serialization_version
        )
    except ValueError:
        return False
    return len(entity.join_keys) == len(entity.entity_values)


def _progress_key(config: RepoConfig, view: FeatureView) -> str:
    return f"materialization_progress:{config.project}:{view.name}"


def _time_field(view: FeatureView) -> str:
    return f"_ts:{view.name}"


def _row_fields(view: FeatureView) -> list[str | bytes]:
    """The fields of an entity's hash that hold its row of a view."""
    return [_time_field(view), *(_mmh3(f"{view.name}:{each.name}") for each in view.features)]


def _timestamp(time: datetime) -> bytes:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp.SerializeToString()


class NeverBackSqliteConfig(SqliteOnlineStoreConfig):
    """SQLite where the settings say."""

    type: Literal["feature_repo.online_store.SettingsOnlineStore"] = _TYPE  # type: ignore[assignment]
    path: str = Field(default_factory=lambda: str(settings().feast_online))


class NeverBackRedisConfig(RedisOnlineStoreConfig):
    """Redis where the settings say."""

    type: Literal["feature_repo.online_store.SettingsOnlineStore"] = _TYPE  # type: ignore[assignment]
    connection_string: str = Field(
        default_factory=lambda: connection_string(
            settings().redis_url, timeout_s=settings().redis_timeout_s
        )
    )


def connection_string(url: str, *, timeout_s: float) -> str:
    """A Redis URL (redis[s]://[user:password@]host[:port][/db]) as Feast writes it."""
    parts = urlsplit(url)
    options = {
        "db": parts.path.strip("/"),
        "username": parts.username,
        "password": parts.password,
        "ssl": "true" if parts.scheme == "rediss" else None,
        "socket_timeout": str(timeout_s),
        "socket_connect_timeout": str(timeout_s),
    }
    given = [f"{name}={value}" for name, value in options.items() if value]
    return ",".join([f"{parts.hostname}:{parts.port or 6379}", *given])


def __getattr__(name: str) -> type:
    """The store or its config by the name in feature_store.yaml, as the settings choose now.

    Feast goes by the names of class and module, hence a class of that name in this module.
    """
    chosen = {
        ("sqlite", _STORE): NeverBackSqlite,
        ("sqlite", _CONFIG): NeverBackSqliteConfig,
        ("redis", _STORE): NeverBackRedis,
        ("redis", _CONFIG): NeverBackRedisConfig,
    }
    if name not in (_STORE, _CONFIG):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    base = chosen[settings().online_store, name]
    return new_class(name, (base,), exec_body=lambda body: body.update(__module__=__name__))
