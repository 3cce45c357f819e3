"""Bringing a wide view online, against writing the same rows straight to the same store.

`straight` is handed rows that are encoded already and only writes them: SQLite by `executemany`,
Redis by a pipeline. `feast` is Feast's own conversion and writing, on the first rows only.
"""

import multiprocessing
import os
import resource
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from io import StringIO
from itertools import islice
from time import perf_counter, process_time
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import redis
import typer
from feast import FeatureView
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.infra.online_stores.sqlite import SqliteOnlineStore
from feast.utils import _convert_arrow_to_proto
from feast.value_type import ValueType

from benchmarks.harness import free_port
from feature_repo.newest_rows import NewestRows
from feature_repo.online_store import NeverBack
from feature_repo.partitions import view_schema
from feature_repo.rows import EncodedRows
from feature_repo.views import BATCH_VIEWS
from nearline.console import JsonFlag, print_json, print_table
from nearline.lake import Lake
from nearline.schema import FEATURE_TS, TIMESTAMP, USER_ID
from nearline.settings import settings
from nearline.windows import HOUR, Window
from pipeline.online import apply_features, feature_store

VIEW = "user_activity"
END = datetime(2026, 3, 1, tzinfo=UTC)
HOURS = 24
LIST_LENGTH = 5
Taken = tuple[int, float, float]
"""Rows, seconds, seconds of the processor."""


@dataclass(frozen=True)
class Figures:
    """One way of writing: how many rows, how fast, and the most memory that its process took.

    `cpu_seconds` are those of the writing process; a Redis server's are not among them.
    """

    way: str
    rows: int
    seconds: float
    cpu_seconds: float
    rows_per_second: float
    peak_mib: float
    peak_mib_beyond_imports: float


def measure(users: int, store: str) -> list[Figures]:
    """Every way in a process and a store of its own, on the same lake."""
    with tempfile.TemporaryDirectory() as home, _redis(home) as url:
        os.environ |= {
            "NEARLINE_HOME": home,
            "NEARLINE_ONLINE_STORE": store,
            "NEARLINE_REDIS_URL": url,
        }
        settings.cache_clear()
        fill_lake(users)
        return [_apart(way) for way in ("materialize", "straight", "feast")]


@contextmanager
def _redis(home: str) -> Iterator[str]:
    """A Redis of our own that keeps nothing."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", home]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


def fill_lake(users: int) -> None:
    """Each user's newest row in one of the hours, and an older row of every second user before."""
    schema = next(view_schema(view) for view in BATCH_VIEWS if view.name == VIEW)
    lake, rng = Lake.open(), np.random.default_rng(1)
    for hour in Window.trailing(END, hours=HOURS).hours():
        n = (END - hour) // HOUR - 1
        ids = [u for u in range(users) if u % HOURS == n or (u % 2 and u % HOURS == n - 1)]
        columns = {field.name: _column(field, len(ids), rng) for field in schema}
        columns[USER_ID] = pa.array([f"user-{user:09}" for user in ids])
        columns[FEATURE_TS] = pa.array([hour + HOUR] * len(ids), TIMESTAMP)
        lake.write_hour(f"features/{VIEW}", hour, pa.table(columns, schema=schema))


def _column(field: pa.Field, rows: int, rng: np.random.Generator) -> pa.Array:
    """Random values of a field's type: small counts, shares, words."""
    if pa.types.is_list(field.type):
        items = _column(field.type.value_field, rows * LIST_LENGTH, rng)
        return pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * LIST_LENGTH, items)
    if pa.types.is_floating(field.type):
        return pa.array(rng.random(rows), field.type)
    if pa.types.is_string(field.type):
        return pa.array(rng.choice(["view", "play", "purchase"], rows), field.type)
    return pa.array(rng.geometric(0.05, rows), pa.int64()).cast(field.type)


def _apart(way: str) -> Figures:
    """Run one way in a fresh process, which reports its own memory."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_run, (way,))


def _run(way: str) -> Figures:
    ways: dict[str, Callable[[], Taken]] = {
        "materialize": _materialize,
        "straight": _straight,
        "feast": _feast,
    }
    _empty_store()
    apply_features()
    before = _peak_mib()
    rows, seconds, cpu_seconds = ways[way]()
    peak = _peak_mib()
    return Figures(way, rows, seconds, cpu_seconds, rows / seconds, peak, peak - before)


def _empty_store() -> None:
    """The store's file is taken away, its Redis emptied: each way begins with nothing."""
    if settings().online_store == "redis":
        redis.Redis.from_url(settings().redis_url).flushdb()
    shutil.rmtree(settings().feast_online.parent, ignore_errors=True)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _materialize() -> Taken:
    store = feature_store()
    with redirect_stdout(StringIO()), _watch() as took:
        store.materialize(END - HOURS * HOUR, END, feature_views=[VIEW])
    return _taken(_online().landed[VIEW], took)


def _straight() -> Taken:
    """Only the writing is timed, not the reading and encoding before it."""
    write = {"sqlite": _write_sqlite, "redis": _write_redis}[settings().online_store]
    encoded = (EncodedRows.of_batch(_view(), batch, with_texts=True) for batch in _batches())
    return _sum(_taken(len(rows.keys), write(rows)) for rows in encoded)


def _write_sqlite(rows: EncodedRows) -> list[float]:
    connection = _sqlite()
    cells = [
        (key, name, values[at], rows.texts[name][at], int(rows.times[at].timestamp()), None)
        for at, key in enumerate(rows.keys)
        for name, values in rows.values.items()
    ]
    with _watch() as took, connection:
        connection.executemany(
            f"INSERT OR REPLACE INTO {settings().feast_project}_{VIEW} "
            "(entity_key, feature_name, value, value_text, event_ts, created_ts) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            cells,
        )
    return took


@cache
def _sqlite() -> sqlite3.Connection:
    connection = sqlite3.connect(settings().feast_online)
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA cache_size=-65536")
    return connection


def _write_redis(rows: EncodedRows) -> list[float]:
    client = redis.Redis.from_url(settings().redis_url)
    hashes = [
        {name: values[at] for name, values in rows.values.items()} for at in range(len(rows.keys))
    ]
    with _watch() as took, client.pipeline(transaction=False) as pipe:
        for key, mapping in zip(rows.keys, hashes, strict=True):
            pipe.hset(key, mapping=mapping)  # type: ignore[arg-type]
        pipe.execute()
    return took


def _feast() -> Taken:
    """What Feast's own engine and store do with a batch."""
    store, config = _online(), feature_store().config
    own = {"sqlite": SqliteOnlineStore, "redis": RedisOnlineStore}[settings().online_store]
    [batch] = islice(_batches(), 1)
    with _watch() as took:
        rows = _convert_arrow_to_proto(batch, _view(), {USER_ID: ValueType.STRING})
        own.online_write_batch(store, config, _view(), rows, None)  # type: ignore[arg-type]
    return _taken(len(batch), took)


@contextmanager
def _watch() -> Iterator[list[float]]:
    """What is done within takes these seconds, of the clock and of the processor, once it ends."""
    took: list[float] = []
    began, began_cpu = perf_counter(), process_time()
    yield took
    took += [perf_counter() - began, process_time() - began_cpu]


def _taken(rows: int, took: Sequence[float]) -> Taken:
    seconds, cpu_seconds = took
    return rows, seconds, cpu_seconds


def _batches() -> Iterator[pa.RecordBatch]:
    rows = NewestRows(_view(), END - HOURS * HOUR, END)
    return (batch for _, batch in rows.batches(size=_online().rows_per_batch))


def _sum(parts: Iterable[Taken]) -> Taken:
    rows, seconds, cpu_seconds = zip(*parts, strict=True)
    return sum(rows), sum(seconds), sum(cpu_seconds)


def _online() -> NeverBack:
    store = feature_store().provider.online_store
    assert isinstance(store, NeverBack)
    return store


def _view() -> FeatureView:
    return next(view for view in BATCH_VIEWS if view.name == VIEW)


def main(
    users: Annotated[int, typer.Option(min=HOURS, help="Users, one row each.")] = 100_000,
    store: Annotated[Literal["sqlite", "redis"], typer.Option(help="Online store.")] = "sqlite",
    as_json: JsonFlag = False,
) -> None:
    """Rows per second and peak memory of bringing users online, beside writing straight.

    Works in a temporary folder, with a Redis of its own. Example: python -m benchmarks.materialize
    --users 1000000 --store redis
    """
    figures = measure(users, store)
    if as_json:
        print_json([asdict(each) for each in figures])
        return
    straight = next(each for each in figures if each.way == "straight")
    rows = [
        [
            each.way,
            each.rows,
            round(each.seconds, 1),
            round(each.cpu_seconds, 1),
            round(each.rows_per_second),
            round(each.rows_per_second / straight.rows_per_second, 2),
            round(each.peak_mib),
            round(each.peak_mib_beyond_imports),
        ]
        for each in figures
    ]
    columns = [
        "way",
        "rows",
        "seconds",
        "cpu s",
        "rows/s",
        "against straight",
        "peak MiB",
        "beyond imports",
    ]
    print_table(f"{VIEW} of {users} users to {store}", columns, rows)


if __name__ == "__main__":
    typer.run(main)
