"""Sequences: the newest events as they stood at the end of an hour, however it was computed."""

import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from nearline.domains import load_domain
from nearline.settings import settings
from nearline.windows import HOUR
from spark_jobs.sequences import USER_SEQUENCE, sequences_at
from spark_jobs.tails import TAIL_SCHEMA, USER_TAIL, day_tails, sequence_events
from spark_jobs.user_states import USER_STATES

# (event id, user, hours after START, item, type, value)
EVENTS = [
    ("a", "ada", -30.0, "alien", "play", 0.5),
    ("b", "ada", -5.0, "brazil", "play", 1.0),
    ("c", "bob", -4.0, "alien", "rating", 4.0),
    ("d", "ada", 1.25, "casablanca", "comment", None),
    ("e", "ada", 1.25, "alien", "rating", 2.5),
    ("f", "bob", 1.5, "brazil", "play", 0.0),
    ("g", "ada", 3.0, "brazil", "rating", 5.0),
    ("h", "cyd", 3.5, "brazil", "play", 0.1),
    ("i", "ada", 20.0, "alien", "play", 0.9),
]


_COMMENTS = [{"item_id": "brazil", "event_type": "comment", "value": None}] * 3


def frame(spark: SparkSession, world: Any, first: float, last: float) -> DataFrame:
    rows = [
        {
            "event_id": e,
            "user_id": user,
            "event_ts": world.at(hours),
            "item_id": item,
            "event_type": kind,
            "value": value,
        }
        for e, user, hours, item, kind, value in random.Random(3).sample(EVENTS, len(EVENTS))
        if first <= hours < last
    ]
    return spark.createDataFrame(pa.Table.from_pylist(rows, schema=TAIL_SCHEMA))


def test_sequences_at_the_end_of_each_hour(spark: SparkSession, world: Any) -> None:
    today, past = frame(spark, world, 0, 24), frame(spark, world, -100, 0)
    found = sequences_at(today, past, world.window(1, 4), 3, []).collect()
    hour = (world.at(0) - world.at(0).replace(year=1970, month=1, day=1)) // HOUR
    told = {
        (row.hour - hour, row.user_id): (row.item_ids, row.event_types, row["values"])
        for row in found
    }
    assert told == {
        (1, "ada"): (
            ["brazil", "casablanca", "alien"],
            ["play", "comment", "rating"],
            [1.0, 0.0, 2.5],
        ),
        (1, "bob"): (["alien", "brazil"], ["rating", "play"], [4.0, 0.0]),
        (3, "ada"): (
            ["casablanca", "alien", "brazil"],
            ["comment", "rating", "rating"],
            [0.0, 2.5, 5.0],
        ),
        (3, "cyd"): (["brazil"], ["play"], [0.1]),
    }
    assert len(found) == len(told)
    times = next(row.event_ts for row in found if row.user_id == "cyd")
    assert times == [int(world.at(3.5).timestamp() * 1_000_000)]


def test_what_happened_more_than_a_year_ago_is_left_out(spark: SparkSession, world: Any) -> None:
    today = frame(spark, world, 3.5, 4)
    old = today.limit(1).selectExpr(
        "user_id", "'alien' as item_id", "event_type", "event_ts - interval 366 day as event_ts",
        "value", "'old' as event_id",
    )  # fmt: skip
    [row] = sequences_at(today, old, world.window(3, 4), 10, ["play"]).collect()
    assert row.item_ids == row.taken_item_ids == ["brazil"]
    [row] = sequences_at(
        today,
        old.selectExpr(
            "user_id", "item_id", "event_type", "event_ts + interval 1 day as event_ts", "value",
            "event_id",
        ),
        world.window(3, 4),
        10,
        ["play"],
    ).collect()  # fmt: skip
    assert row.item_ids == row.taken_item_ids[::-1] == ["alien", "brazil"]


def test_a_tail_holds_the_newest_events_of_a_day(spark: SparkSession, world: Any) -> None:
    tails = day_tails(frame(spark, world, -100, 100), 2, []).collect()
    assert sorted(row.event_id for row in tails) == ["a", "b", "c", "f", "g", "h", "i"]


def test_a_tail_holds_the_newest_event_that_takes_each_item_too(
    spark: SparkSession, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spark_jobs.tails.TAKEN_ITEMS", 2)
    rows = [("a", "x", "rating"), ("b", "x", "rating"), ("c", "y", "rating"), ("d", "z", "rating")]
    rows += [(name, "w", "play") for name in "efgh"]
    events = [
        {"user_id": "ada", "event_ts": world.at(n / 10), "event_id": e, "item_id": i}
        | {"event_type": kind}
        for n, (e, i, kind) in enumerate(rows)
    ]
    told = spark.createDataFrame(pa.Table.from_pylist(events, schema=TAIL_SCHEMA))
    ids = {row.event_id for row in day_tails(told, 2, ["rating"]).collect()}
    assert ids == {"c", "d", "g", "h"}
    assert {row.event_id for row in day_tails(told, 7, ["rating"]).collect()} == set("bcdefgh")


def test_items_taken_long_ago_are_known_however_much_was_done_since(
    other_worlds: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_SEQUENCE_LENGTH", "2")
    monkeypatch.setenv("NEARLINE_LATE_HOURS", "2")
    settings.cache_clear()
    world = other_worlds()
    since = [
        world.row(f"c{n}", 24.0 * n + 5, item_id="casablanca", event_type="comment", value=None)
        for n in range(1, 5)
    ]
    bought = [("p0", 1.5, "alien"), ("p1", 1.6, "brazil"), ("p2", 1.7, "alien")]
    plays = [world.row(e, hours, item_id=item, event_type="play") for e, hours, item in bought]
    world.arrive(*plays, *since, *(world.row(f"d{n}", 1.8) | c for n, c in enumerate(_COMMENTS)))
    for first in range(0, 120, 24):
        world.run(first, first + 24)
    rows = world.rows(USER_SEQUENCE)
    assert [row["taken_item_ids"] for row in rows] == [["alien", "brazil"]] * 5
    assert rows[-1]["item_ids"] == ["casablanca"] * 2
    assert USER_STATES.days(world.lake)


def test_events_that_tell_nothing_are_left_out(spark: SparkSession, world: Any) -> None:
    rows = [
        {"event_id": "seen", "item_id": "x", "event_type": "impression"},
        {"event_id": "liked", "item_id": "x", "event_type": "like"},
        {"event_id": "lost", "item_id": None, "event_type": "follow"},
    ]
    events = spark.createDataFrame(pa.Table.from_pylist(rows, schema=TAIL_SCHEMA))
    domain = load_domain("social")
    telling = {name for name, kind in domain.event_types.items() if kind.weight > 0}
    kept = {row.event_id for row in sequence_events(events, domain).collect()}
    assert kept == {r["event_id"] for r in rows if r["event_type"] in telling and r["item_id"]}
    assert "liked" in kept


def fill(world: Any, *, late: bool = True) -> None:
    rows = [
        world.row(e, hours, user_id=user, item_id=item, event_type=kind, value=_text(value))
        for e, user, hours, item, kind, value in EVENTS
    ]
    if late:
        rows.append(world.row("late", 0.5, received=21.5))
    random.Random(4).shuffle(rows)
    world.arrive(*rows)


def _text(value: float | None) -> str | None:
    return None if value is None else str(value)


def test_hour_by_hour_gives_the_bytes_of_the_bulk_run(
    other_worlds: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_SEQUENCE_LENGTH", "4")
    settings.cache_clear()
    bulk = other_worlds()
    fill(bulk)
    bulk.run(-30, 22)
    stepwise = other_worlds()
    fill(stepwise)
    for first, last in [(-30, 0), (0, 2), (2, 3), (3, 4), (4, 21), (21, 22)]:
        stepwise.run(first, last)
    files = bulk.files()
    assert stepwise.files() == files
    assert sum(USER_SEQUENCE in path for path in files) == 7
    assert sum(USER_TAIL in path for path in files) == 3
    stepwise.run(3, 4)
    assert stepwise.files() == files


def test_a_late_event_changes_its_users_later_hours_and_nothing_else(world: Any) -> None:
    fill(world, late=False)
    world.run(-30, 21)
    before = world.files()
    world.arrive(world.row("late", 0.5, received=21.5))
    report = world.run(21, 22)
    assert report.changed == world.window(0, 22)
    after = world.files()
    changed = {path for path in after if after[path] != before.get(path)}
    hours = {path.split("/hr=")[1][:2] for path in changed if USER_SEQUENCE in path}
    assert hours == {"00", "01", "03", "20"}
    for row in world.rows(USER_SEQUENCE, 0, 21):
        late = int(world.at(0.5).timestamp() * 1_000_000)
        assert (late in row["event_ts"]) == (row["user_id"] == "ada")


def test_nothing_later_than_feature_ts_is_known(world: Any) -> None:
    fill(world)
    world.run(-30, 22)
    rows = world.rows(USER_SEQUENCE)
    assert len(rows) == 9
    for row in rows:
        assert max(row["event_ts"]) < row["feature_ts"].timestamp() * 1_000_000
        assert row["event_ts"] == sorted(row["event_ts"])
        lengths = {len(row[name]) for name in ("item_ids", "event_types", "event_ts", "values")}
        assert len(lengths) == 1
