"""What is brought online, on SQLite and on Redis: the newest, never the older, and the pushed."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.infra.online_stores.sqlite import SqliteOnlineStore
from feast.utils import _convert_arrow_to_proto
from feast.value_type import ValueType

import pipeline.online
from feature_repo import newest_rows
from feature_repo.online_store import NeverBackRedis, NeverBackSqlite
from feature_repo.partitions import view_schema
from feature_repo.views import BATCH_VIEWS
from nearline import bundle
from nearline.errors import BadInput, CorruptRelease, MissingPartition, StepFailed
from nearline.lake import Lake
from nearline.pushed import pushed
from nearline.releases import ReleaseManifest, ReleaseStore
from nearline.schema import FEATURE_TS, TIMESTAMP
from nearline.sequence import Vocabulary
from nearline.settings import settings
from nearline.windows import HOUR, Window
from pipeline import steps
from pipeline.online import (
    NIGHTLY,
    apply_features,
    expire_users,
    feature_store,
    forget_users,
    materialize,
    materialize_neighbours,
    push_embeddings,
    stored_of,
)
from pipeline.publish import ActiveUsers

T0 = datetime(2026, 3, 1, 10, tzinfo=UTC)
REDIS = "redis://127.0.0.1:6379/13"
KEYS = {"user": "user_id", "item": "item_id", "surface": "surface"}
Row = dict[str, Any]


@pytest.fixture(params=["sqlite", "redis"])
def online(
    request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lake]:
    """An empty lake, with an empty online store of either kind."""
    monkeypatch.setenv("NEARLINE_ONLINE_STORE", request.param)
    monkeypatch.setenv("NEARLINE_REDIS_URL", REDIS)
    settings.cache_clear()
    feature_store.cache_clear()
    database = redis.Redis.from_url(REDIS) if request.param == "redis" else None
    if database is not None:
        flush_or_skip(database)
    yield Lake.open()
    if database is not None:
        database.flushdb()
    feature_store.cache_clear()


def flush_or_skip(database: redis.Redis) -> None:
    try:
        database.flushdb()
    except redis.ConnectionError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no Redis at {REDIS}")


@pytest.fixture
def live_in() -> Iterator[Callable[[str], None]]:
    """Puts this process into a time zone."""
    with pytest.MonkeyPatch.context() as patch:

        def move(zone: str) -> None:
            patch.setenv("TZ", zone)
            time.tzset()

        yield move
    time.tzset()


def write(lake: Lake, name: str, hour: datetime, rows: Sequence[Row]) -> None:
    """One hour of a feature dataset; a row needs its key and what the test is about."""
    [view] = [view for view in BATCH_VIEWS if view.name == name]
    full = [{FEATURE_TS: hour + HOUR} | row for row in rows]
    table = pa.Table.from_pylist(full, schema=view_schema(view))
    lake.write_hour(f"features/{name}", hour, table)


def close(lake: Lake, window: Window) -> None:
    for view in BATCH_VIEWS:
        if view.name != NIGHTLY:
            lake.mark_complete(f"features/{view.name}", window, rows=0)


def hour(n: int) -> Window:
    return Window(T0 + n * HOUR, T0 + (n + 1) * HOUR)


def read(view: str, field: str, entity: str, *keys: str) -> list[Any]:
    answer = feature_store().get_online_features(
        features=[f"{view}:{field}"], entity_rows=[{KEYS[entity]: key} for key in keys]
    )
    return answer.to_dict()[field]


def sequence(user: str, *items: str) -> Row:
    count = len(items)
    return {
        "user_id": user,
        "item_ids": list(items),
        "event_types": ["play"] * count,
        "event_ts": list(range(count)),
        "values": [0.5] * count,
    }


def test_the_newest_row_of_each_key_comes_online(online: Lake) -> None:
    for n in (0, 1):
        at = T0 + n * HOUR
        write(online, "user_activity", at, [{"user_id": "u", "events_1h": n + 1}])
        write(online, "user_sequence", at, [sequence("u", "a", f"b{n}")])
        affinity = {"user_id": "u", "categories": ["Drama"], "affinities": [n + 0.5]}
        write(online, "user_category_affinity", at, [affinity])
        write(online, "item_popularity", at, [{"item_id": "a", "velocity": n + 0.25}])
        top = {"surface": "all", "item_ids": [f"a{n}", "b"], "scores": [2.0, 1.0]}
        write(online, "trending", at, [top])
    write(online, "user_activity", T0, [{"user_id": "early", "events_1h": 9}])
    near = {"item_id": "a", "neighbour_ids": ["b"], "scores": [0.5]}
    write(online, "item_neighbours", T0, [near])
    window = Window(T0, T0 + 2 * HOUR)
    close(online, window)
    report = materialize(window)
    assert {name: rows for name, rows in report.rows.items() if rows} == {
        "user_activity": 2,
        "user_category_affinity": 1,
        "user_sequence": 1,
        "item_popularity": 1,
        "item_neighbours": 1,
        "trending": 1,
    }
    assert read("user_activity", "events_1h", "user", "u", "early", "nobody") == [2, 9, None]
    assert read("user_sequence", "item_ids", "user", "u") == [["a", "b1"]]
    assert read("user_sequence", "event_ts", "user", "u") == [[0, 1]]
    assert read("user_category_affinity", "affinities", "user", "u") == [[1.5]]
    assert read("item_popularity", "velocity", "item", "a") == [1.25]
    assert read("trending", "item_ids", "surface", "all") == [["a1", "b"]]
    assert read("item_neighbours", "neighbour_ids", "item", "a") == [["b"]]
    assert materialize(window) == report
    assert read("user_activity", "events_1h", "user", "u", "early") == [2, 9]
    assert online.covered("online/user_activity") == [window]


@pytest.mark.parametrize("entity", sorted(KEYS))
def test_a_read_gives_the_columns_that_feast_gives(online: Lake, entity: str) -> None:
    write(online, "user_activity", T0, [{"user_id": "u", "events_1h": 3, "last_event_ts": T0}])
    write(online, "user_sequence", T0, [sequence("u", "a", "b"), sequence("v", "a")])
    write(online, "item_popularity", T0, [{"item_id": "a", "velocity": 0.25}])
    write(online, "trending", T0, [{"surface": "all", "item_ids": ["a"], "scores": [2.0]}])
    close(online, hour(0))
    materialize(hour(0))
    vectors = np.array([[0.6, 0.8]], dtype=np.float32)
    push_embeddings(publish(np.eye(2), T0), ["u"], vectors)

    store, keys = feature_store(), {"user": "uvw", "item": "ab", "surface": ["all", "other"]}
    views = [view for view in store.list_feature_views() if view.entities == [entity]]
    names = [f"{view.name}:{field.name}" for view in views for field in view.features]
    rows = [{KEYS[entity]: key} for key in keys[entity]]
    expected = store.get_online_features(names, rows, full_feature_names=True)
    columns = expected.to_dict(include_event_timestamps=True)
    for key in (KEYS[entity], f"{KEYS[entity]}__ts"):
        columns.pop(key)
    assert store.read(names, rows) == columns
    assert store.read(names, rows[:1]) == {name: column[:1] for name, column in columns.items()}
    assert any(value is not None for column in columns.values() for value in column)


def test_an_older_hour_never_takes_a_key_back_and_a_corrected_row_lands(online: Lake) -> None:
    close(online, Window(T0, T0 + 2 * HOUR))
    for n in (0, 1):
        write(online, "user_activity", T0 + n * HOUR, [{"user_id": "u", "events_1h": n}])
    assert materialize(hour(1)).rows["user_activity"] == 1
    assert materialize(hour(0)).rows["user_activity"] == 0
    assert read("user_activity", "events_1h", "user", "u") == [1]
    write(online, "user_activity", T0 + HOUR, [{"user_id": "u", "events_1h": 7}])
    assert materialize(hour(1)).rows["user_activity"] == 1
    assert read("user_activity", "events_1h", "user", "u") == [7]


def test_a_run_brings_its_own_hours_and_no_other(online: Lake) -> None:
    close(online, Window(T0, T0 + 3 * HOUR))
    for n in range(3):
        write(online, "user_activity", T0 + n * HOUR, [{"user_id": f"u{n}", "events_1h": n}])
    assert materialize(hour(1)).rows["user_activity"] == 1
    assert read("user_activity", "events_1h", "user", "u0", "u1", "u2") == [None, 1, None]


def test_hours_that_late_events_changed_land(online: Lake) -> None:
    close(online, Window(T0, T0 + 9 * HOUR))
    write(online, "user_sequence", T0, [sequence("u", "a")])
    materialize(hour(0))
    write(online, "user_sequence", T0, [sequence("u", "a", "late")])
    write(online, "user_sequence", T0 + 2 * HOUR, [sequence("late", "b")])
    online.mark_complete("features/user_sequence", hour(8), rows=2, since=T0)
    materialize(hour(8))
    assert read("user_sequence", "item_ids", "user", "u", "late") == [["a", "late"], ["b"]]


@pytest.mark.parametrize(
    ("writer", "reader", "end"),
    [
        ("America/New_York", "UTC", T0 + HOUR),
        ("UTC", "America/New_York", T0 + HOUR),
        ("Asia/Kolkata", "Europe/Berlin", T0 + HOUR),
        # 02:00 and 02:30 are on no clock there that night, in autumn they are twice.
        ("Europe/Berlin", "Europe/Berlin", datetime(2027, 3, 28, 2, tzinfo=UTC)),
        ("Europe/Berlin", "Europe/Berlin", datetime(2027, 10, 31, 2, tzinfo=UTC)),
    ],
)
def test_a_time_is_the_same_wherever_it_is_written_and_read(
    online: Lake, live_in: Callable[[str], None], writer: str, reader: str, end: datetime
) -> None:
    live_in(writer)
    write(online, "user_activity", end - HOUR, [{"user_id": "u", "last_event_ts": end}])
    close(online, Window.trailing(end, hours=1))
    materialize(Window.trailing(end, hours=1))
    push_embeddings(publish(np.eye(2), end), ["u"], np.ones((1, 2), dtype=np.float32))

    live_in(reader)
    feature_store.cache_clear()
    names = ["user_activity:last_event_ts", "user_embedding:release"]
    row = feature_store().read(names, [{"user_id": "u"}])
    assert row["user_activity__last_event_ts"] == [end]
    assert row["user_activity__last_event_ts__ts"] == [end.timestamp()]
    assert row["user_embedding__release__ts"] == [end.timestamp()]
    answer = feature_store().get_online_features(names, [{"user_id": "u"}])
    times = [ts.ToDatetime(UTC) for found in answer.proto.results for ts in found.event_timestamps]
    assert times[1:] == [end, end]
    assert materialize(Window.trailing(end, hours=1)).rows["user_activity"] == 1, "it is as new"


def test_times_that_were_stored_by_a_clock_on_the_wall_are_put_right_once(
    home: Path, live_in: Callable[[str], None]
) -> None:
    """As a store has them that was written before times were stored as they are."""
    feature_store.cache_clear()
    live_in("America/New_York")
    close(Lake.open(), hour(0))
    for name in ("user_activity", "user_searches"):
        write(Lake.open(), name, T0, [{"user_id": "u"}])
    materialize(hour(0))
    with sqlite3.connect(settings().feast_online) as connection:
        for name in ("user_activity", "user_searches"):
            connection.execute(f"UPDATE nearline_{name} SET event_ts = event_ts + 5 * 3600")
        connection.execute("PRAGMA user_version = 0")
    for _ in range(2):
        apply_features()
        names = ["user_activity:events_1h", "user_searches:searches_24h"]
        row = feature_store().read(names, [{"user_id": "u"}])
        assert row["user_activity__events_1h__ts"] == [(T0 + HOUR).timestamp()]
        assert row["user_searches__searches_24h__ts"] == [(T0 + HOUR).timestamp()]
    feature_store.cache_clear()


def test_what_is_stored_is_what_feast_itself_would_store(
    online: Lake, live_in: Callable[[str], None]
) -> None:
    live_in("UTC")  # Feast's SQLite store goes by the clock on the wall
    rows = [{"user_id": f"u{n}", "events_1h": n, "decayed_weight": n / 3} for n in range(3)]
    write(online, "user_activity", T0, [row | {"last_event_ts": T0} for row in rows])
    write(online, "user_sequence", T0, [sequence("u0", "a", "b"), sequence("u1")])
    close(online, hour(0))
    materialize(hour(0))
    ours = everything_stored()
    config, store = feature_store().config, feature_store().provider.online_store
    own = SqliteOnlineStore if settings().online_store == "sqlite" else RedisOnlineStore
    empty_store()
    for name in ("user_activity", "user_sequence"):
        [view] = [view for view in BATCH_VIEWS if view.name == name]
        table = pq.read_table(online.hour_path(f"features/{name}", T0), partitioning=None)
        protos = _convert_arrow_to_proto(table, view, {"user_id": ValueType.STRING})
        own.online_write_batch(store, config, view, protos, None)
    assert len(ours) >= len(rows)
    assert everything_stored() == ours


def everything_stored() -> Any:
    """What lies in the online store, whatever its order."""
    store, config = feature_store().provider.online_store, feature_store().config
    if settings().online_store == "redis":
        database = redis.Redis.from_url(REDIS)
        return {key: database.hgetall(key) for key in database.scan_iter(_type="hash")}
    connection = store._get_conn(config)
    views = (f"nearline_{view.name}" for view in BATCH_VIEWS)
    return sorted(
        (view, *row[:6])
        for view in views
        for row in connection.execute(
            f"select entity_key, feature_name, value, ifnull(value_text, ''), "
            f"event_ts + 0, ifnull(created_ts + 0, 0) from {view}"
        )
    )


def empty_store() -> None:
    store, config = feature_store().provider.online_store, feature_store().config
    if settings().online_store == "redis":
        redis.Redis.from_url(REDIS).flushdb()
        return
    with store._get_conn(config) as connection:
        for view in BATCH_VIEWS:
            connection.execute(f"delete from nearline_{view.name}")


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for store in (NeverBackSqlite, NeverBackRedis):
        monkeypatch.setattr(store, "rows_per_batch", 2)
    monkeypatch.setattr(newest_rows, "_ROWS_PER_QUERY", 4)


def five_users(lake: Lake, value: int = 0) -> Window:
    """Five users over two hours, of which one has a row in both."""
    for n, users in enumerate((["a", "b", "e"], ["c", "d", "e"])):
        rows = [{"user_id": user, "events_1h": value + n} for user in users]
        write(lake, "user_activity", T0 + n * HOUR, rows)
    window = Window(T0, T0 + 2 * HOUR)
    close(lake, window)
    return window


def killed_after(batches: int, monkeypatch: pytest.MonkeyPatch, window: Window) -> None:
    """Materialize, but die before the batch after so many is written."""
    online, written = feature_store().provider.online_store, 0
    write_batch = online._write

    def write_or_die(*arguments: Any) -> None:
        nonlocal written
        written += 1
        if written > batches:
            raise KeyboardInterrupt
        write_batch(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(online, "_write", write_or_die)
        with pytest.raises(KeyboardInterrupt):
            materialize(window)


def test_a_run_that_was_killed_goes_on_where_it_stopped(
    online: Lake, small_batches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = five_users(online)
    killed_after(2, monkeypatch, window)
    assert read("user_activity", "events_1h", "user", *"abcde") == [0, None, 1, 1, 1]
    seen: list[int] = []
    store = feature_store().provider.online_store
    monkeypatch.setattr(
        store, "_write", lambda *a, w=store._write: (seen.append(len(a[2].keys)), w(*a))
    )
    assert materialize(window).rows["user_activity"] == 5
    assert seen == [1]
    assert read("user_activity", "events_1h", "user", *"abcde") == [0, 0, 1, 1, 1]
    assert materialize(window).rows["user_activity"] == 5
    assert seen == [1, 2, 2, 1]


def test_a_run_that_was_killed_begins_anew_where_the_lake_or_the_window_changed(
    online: Lake, small_batches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = five_users(online)
    killed_after(2, monkeypatch, window)
    five_users(online, value=7)
    assert materialize(window).rows["user_activity"] == 5
    assert read("user_activity", "events_1h", "user", *"abcde") == [7, 7, 8, 8, 8]
    five_users(online, value=9)
    killed_after(1, monkeypatch, window)
    assert materialize(hour(1)).rows["user_activity"] == 3
    assert read("user_activity", "events_1h", "user", *"abcde") == [7, 7, 10, 10, 10]


def test_an_hour_that_becomes_stale_while_it_is_brought_online_stays_stale(
    online: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = five_users(online)
    ledger, first = online.ledger("online/user_activity"), pipeline.online._first

    def beside(view: Any, hours: Window) -> datetime:
        ledger.make_stale(window)
        return first(view, hours)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.online, "_first", beside)
        materialize(window)
    assert ledger.stale() == [window]
    materialize(window)
    assert ledger.stale() == []


def test_an_empty_hour_is_no_error_and_a_missing_one_is(online: Lake) -> None:
    close(online, hour(0))
    assert set(materialize(hour(0)).rows.values()) == {0}
    with pytest.raises(MissingPartition, match="features/user_activity is not complete"):
        materialize(hour(1))


def test_neighbours_are_brought_online_by_themselves(online: Lake) -> None:
    with pytest.raises(MissingPartition, match="features/item_neighbours"):
        materialize_neighbours(T0 + HOUR)
    near = {"item_id": "a", "neighbour_ids": ["b", "c"], "scores": [0.5, 0.25]}
    write(online, "item_neighbours", T0, [near])
    online.mark_complete("features/item_neighbours", hour(0), rows=1)
    assert materialize_neighbours(T0 + HOUR) == 1
    assert read("item_neighbours", "scores", "item", "a") == [[0.5, 0.25]]


def publish(vectors: np.ndarray, end: datetime) -> str:
    """A release of items i0, i1, … with these vectors."""
    store, items = ReleaseStore.open(), tuple(f"i{n}" for n in range(len(vectors)))
    with store.stage() as folder:
        bundle.write_vocabulary(folder, Vocabulary(items, ("play",)))
        np.save(folder / bundle.ITEM_MATRIX, vectors.astype(np.float32))
        manifest = ReleaseManifest(
            kind="nightly",
            parent=None,
            base=None,
            window_start=end - HOUR,
            window_end=end,
            promoted=True,
            reasons=[],
            metrics={},
        )
        return store.publish(folder, manifest)


def test_the_last_push_wins_even_of_an_older_release(online: Lake) -> None:
    old, new = publish(np.eye(2), T0), publish(-np.eye(2), T0 + HOUR)
    for version, sign in ((old, 1.0), (new, -1.0), (old, 1.0)):
        report = push_embeddings(version, ["u"], np.array([[sign, 0.5]], dtype=np.float32))
        assert report.rows == {"item_embedding": 2, "user_embedding": 1}
        assert read("item_embedding", "release", "item", "i0", "i1") == [version, version]
        assert read("item_embedding", "embedding", "item", "i1") == [[0.0, sign]]
        assert read("user_embedding", "release", "user", "u", "nobody") == [version, None]
        assert read("user_embedding", "embedding", "user", "u") == [[sign, 0.5]]
        assert pushed() == version


def test_the_store_tells_whose_vectors_it_holds(
    online: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = publish(np.eye(2), T0), publish(-np.eye(2), T0)
    assert pushed() is None
    push_embeddings(first)
    with monkeypatch.context() as patch:
        patch.setattr(feature_store(), "push", lambda *_, **__: 1 / 0)
        with pytest.raises(StepFailed, match=r"item vectors of .* were not pushed: division"):
            push_embeddings(second)
    assert pushed() is None
    push_embeddings(second)
    assert pushed() == second
    if settings().online_store == "redis":
        empty_store()
        assert pushed() is None


def test_vectors_are_as_old_as_what_they_were_made_of(
    online: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a user does later must not seem to be in them."""
    version, early = publish(np.eye(2), T0 + HOUR), T0 + HOUR / 2
    for known_until in (early, T0 + HOUR, T0):
        made = ActiveUsers(["u"], np.ones((1, 2), dtype=np.float32), known_until)
        monkeypatch.setattr("pipeline.publish.active_users", lambda _, made=made: made)
        steps.push(version)
        told = feature_store().read(["user_embedding:release"], [{"user_id": "u"}])
        assert told["user_embedding__release__ts"] == [known_until.timestamp()]


def test_a_push_without_users_pushes_the_items(online: Lake) -> None:
    version = publish(np.eye(2), T0)
    assert push_embeddings(version).rows == {"item_embedding": 2, "user_embedding": 0}
    assert read("item_embedding", "release", "item", "i0") == [version]


def test_forgotten_users_leave_the_store_and_nobody_else_does(online: Lake, home: Path) -> None:
    vectors = np.eye(2, dtype=np.float32)
    version = publish(vectors, T0)
    push_embeddings(version, ["forget-me", "forget-me-not"], vectors)
    rows = [{"user_id": user, "events_1h": 1} for user in ("forget-me", "forget-me-not")]
    write(online, "user_activity", T0, rows)
    write(online, "user_sequence", T0, [sequence("forget-me", *(f"item{n}" for n in range(300)))])
    close(online, hour(0))
    materialize(hour(0))
    users = ["forget-me", "forget-me-not", "nobody"]
    assert stored_of(users) == {
        "forget-me": ["user_activity", "user_embedding", "user_sequence"],
        "forget-me-not": ["user_activity", "user_embedding"],
        "nobody": [],
    }
    before = everything_stored()
    forget_users(["forget-me", "nobody"])
    left = stored_of(users)
    assert left == {
        "forget-me": [],
        "forget-me-not": ["user_activity", "user_embedding"],
        "nobody": [],
    }
    assert read("user_sequence", "item_ids", "user", "forget-me") == [None]
    after = everything_stored()
    assert len(after) < len(before)
    for path in (home / "feast").iterdir():
        assert b"forget-me" not in path.read_bytes().replace(b"forget-me-not", b"")
    forget_users(["forget-me"])
    assert everything_stored() == after


def test_rows_of_users_go_for_their_age_and_those_of_items_stay(online: Lake) -> None:
    """Of one who searched later, the row of the searches stays."""
    push_embeddings(publish(np.eye(2), T0 + HOUR), ["gone"], np.ones((1, 2), dtype=np.float32))
    for at, users in ((T0, ["gone", "searching"]), (T0 + 3 * HOUR, ["here"])):
        write(online, "user_sequence", at, [sequence(user, "i0") for user in users])
    write(online, "user_activity", T0, [{"user_id": "gone", "events_1h": 1}])
    write(online, "user_searches", T0 + 2 * HOUR, [{"user_id": "searching", "searches_24h": 1}])
    write(online, "item_popularity", T0, [{"item_id": "i0", "events_1h": 1}])
    window = Window(T0, T0 + 4 * HOUR)
    close(online, window)
    materialize(window)
    assert expire_users(T0 + HOUR) == 0
    assert expire_users(T0 + 2 * HOUR) == 4
    users = ["gone", "searching", "here"]
    left = {"gone": [], "searching": ["user_searches"], "here": ["user_sequence"]}
    assert stored_of(users) == left
    assert read("user_sequence", "item_ids", "user", *users) == [None, None, ["i0"]]
    assert read("user_searches", "searches_24h", "user", "searching") == [1]
    assert read("item_popularity", "events_1h", "item", "i0") == [1]
    assert read("item_embedding", "embedding", "item", "i0") == [[1.0, 0.0]]
    after = everything_stored()
    assert expire_users(T0 + 2 * HOUR) == 0
    assert everything_stored() == after


@pytest.mark.parametrize("online", ["redis"], indirect=True)
def test_what_is_old_of_another_project_stays(
    online: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one Redis a project's keys may end as those of another do."""
    monkeypatch.setenv("NEARLINE_FEAST_PROJECT", "my_shop")
    settings.cache_clear()
    write(online, "user_activity", T0, [{"user_id": "u", "events_1h": 1}])
    close(online, hour(0))
    materialize(hour(0))
    store = feature_store()
    views = [store.get_feature_view("user_activity")]
    shop = store.config.model_copy(update={"project": "shop"})
    assert store.online.expire(shop, views, T0 + 9 * HOUR) == 0
    assert expire_users(T0 + 9 * HOUR) == 1


def test_nothing_is_stored_where_nothing_was_brought_online(home: Path) -> None:
    assert stored_of(["u"]) == {"u": []}
    forget_users(["u"])
    assert expire_users(T0) == 0
    assert not (home / "feast").exists()


def test_a_store_that_is_read_meanwhile_keeps_its_word(home: Path) -> None:
    feature_store.cache_clear()
    lake = Lake.open()
    write(lake, "user_activity", T0, [{"user_id": "forget-me", "events_1h": 1}])
    close(lake, hour(0))
    materialize(hour(0))
    reader = sqlite3.connect(settings().feast_online)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM sqlite_master").fetchall()
    feature_store().provider.online_store._conn.execute("PRAGMA busy_timeout=1")
    with pytest.raises(StepFailed, match=r"is being read.*run this again"):
        forget_users(["forget-me"])
    reader.close()
    forget_users(["forget-me"])
    feature_store.cache_clear()
    for path in (home / "feast").iterdir():
        assert b"forget-me" not in path.read_bytes()


def test_vectors_that_match_nothing_are_not_pushed(home: Path) -> None:
    version = publish(np.eye(2), T0)
    with pytest.raises(BadInput, match="2 ids and dimension 2 do not match vectors of shape"):
        push_embeddings(version, ["u", "v"], np.ones((2, 3), dtype=np.float32))
    np.save(ReleaseStore.open().load(version).path / bundle.ITEM_MATRIX, np.ones((2, 2)))
    with pytest.raises(CorruptRelease, match=r"item_matrix\.npy was changed"):
        push_embeddings(version)


def test_a_store_that_cannot_be_written_fails_the_step(home: Path) -> None:
    feature_store.cache_clear()
    settings().feast_online.mkdir(parents=True)
    close(Lake.open(), hour(0))
    with pytest.raises(StepFailed, match="were not applied: unable to open database"):
        materialize(hour(0))
    with pytest.raises(StepFailed, match="were not applied"):
        push_embeddings(publish(np.eye(2), T0))
    assert Lake.open().covered("online/user_activity") == []
    feature_store.cache_clear()


def test_rows_that_are_no_features_fail_the_step(online: Lake) -> None:
    close(online, hour(0))
    wrong = pa.table({"user_id": ["u"], FEATURE_TS: pa.array([T0 + HOUR], TIMESTAMP)})
    online.write_hour("features/user_activity", T0, wrong)
    with pytest.raises(StepFailed, match="view user_activity was not materialized"):
        materialize(hour(0))
    assert online.covered("online/user_activity") == []
