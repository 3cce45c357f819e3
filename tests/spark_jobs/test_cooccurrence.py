"""Co-occurrence: weights of pairs, neighbours and their scores, days done once and again."""

import random
from datetime import date
from math import sqrt
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

import spark_jobs.pairs
from nearline.errors import MissingPartition
from nearline.schema import ITEM_ID, USER_ID
from nearline.windows import HOUR, Window
from spark_jobs import cooccurrence
from spark_jobs.cooccurrence import ITEM_NEIGHBOURS, NEIGHBOUR_SCHEMA, SHRINKAGE, nearest
from spark_jobs.fading import block_of, weighed
from spark_jobs.jobs import run_cooccurrence
from spark_jobs.pairs import COOCCURRENCE, PAIR_SCHEMA, UNITS, day_pairs, days_over
from spark_jobs.partitions import EPOCH
from spark_jobs.tails import TAIL_SCHEMA

DAY_SCHEMA = TAIL_SCHEMA.append(pa.field("day", pa.int32()))


def day(world: Any, *rows: tuple[str, str]) -> pa.Table:
    """One day of (user, item) in order of time, shuffled."""
    events = [
        {
            USER_ID: user,
            ITEM_ID: item,
            "event_type": "play",
            "event_ts": world.at(n / 100),
            "event_id": f"{n:04}",
            "day": 7,
        }
        for n, (user, item) in enumerate(rows)
    ]
    random.Random(1).shuffle(events)
    return pa.Table.from_pylist(events, schema=DAY_SCHEMA)


def weights(pairs: pa.Table) -> dict[tuple[str, str], int]:
    return {(row[ITEM_ID], row["neighbour_id"]): row["units"] for row in pairs.to_pylist()}


def test_a_pair_weighs_one_over_its_distance(world: Any) -> None:
    ada = [("ada", item) for item in ("x", "y", "z", "x", "y")]
    pairs = day_pairs(day(world, ada[0], ("bob", "x"), *ada[1:], ("bob", "z")))
    one, half, third, quarter = (UNITS // n for n in (1, 2, 3, 4))
    both = {
        ("x", "y"): one + one + quarter + half,
        ("x", "z"): half + one + one,
        ("y", "z"): one + half,
    }
    assert weights(pairs) == both | {(b, a): units for (a, b), units in both.items()}
    assert third not in weights(pairs).values()
    assert pairs.schema.equals(PAIR_SCHEMA)
    assert set(pairs["day"].to_pylist()) == {7}


def test_items_far_apart_or_alone_make_no_pair(world: Any) -> None:
    rows = [("ada", "first"), *(("ada", "same") for _ in range(10)), ("ada", "last")]
    assert ("first", "last") not in weights(day_pairs(day(world, *rows)))
    assert weights(day_pairs(day(world, *rows[:1], *rows[2:])))["first", "last"] == UNITS // 10
    assert day_pairs(day(world, ("ada", "x"))).num_rows == 0
    assert day_pairs(day(world, ("ada", "x"), ("ada", "x"))).num_rows == 0


def test_of_a_very_long_day_the_newest_events_count(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark_jobs.pairs, "DAY_EVENTS", 2)
    pairs = day_pairs(day(world, ("bob", "w"), *(("ada", item) for item in "wxyz"), ("bob", "x")))
    assert set(weights(pairs)) == {("y", "z"), ("z", "y"), ("w", "x"), ("x", "w")}


def weight_frame(spark: SparkSession, today: date, rows: list[tuple[int, str, str, int]]) -> Any:
    """Pairs (day, item, neighbour, units) in both directions, worth as on `today`."""
    both = rows + [(day, b, a, units) for day, a, b, units in rows]
    random.Random(2).shuffle(both)
    table = pa.Table.from_pylist(
        [dict(zip(PAIR_SCHEMA.names, row, strict=True)) for row in both], schema=PAIR_SCHEMA
    )
    return weighed(spark.createDataFrame(table), block_of(today))


def test_scores_are_shrunk_cosines_of_faded_weights(spark: SparkSession, world: Any) -> None:
    today = (world.at(0) - EPOCH).days
    weights = weight_frame(
        spark,
        world.at(0).date(),
        [
            (today, "x", "y", 4 * UNITS),
            (today - 30, "x", "y", 4 * UNITS),
            (today - 60, "x", "z", 8 * UNITS),
            (today, "y", "w", UNITS),
        ],
    )
    found = {
        row.item_id: dict(zip(row.neighbour_ids, row.scores, strict=True))
        for row in nearest(weights, world.at(0).date()).collect()
    }
    total = {"x": 8, "y": 7, "z": 2, "w": 1}
    for a, b, weight in [("x", "y", 6), ("x", "z", 2), ("y", "w", 1)]:
        score = weight / (sqrt(total[a] * total[b]) + SHRINKAGE)
        assert found[a][b] == found[b][a] == pytest.approx(score, abs=1e-3)
    assert list(found["x"]) == ["y", "z"]
    assert all(0 < score < 1 for scores in found.values() for score in scores.values())


def test_the_best_neighbours_are_kept_and_ties_go_by_id(
    spark: SparkSession, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cooccurrence, "NEIGHBOURS", 3)
    today = (world.at(0) - EPOCH).days
    rows = [(today, "hub", f"n{n}", UNITS) for n in range(6)]
    found = nearest(weight_frame(spark, world.at(0).date(), rows), world.at(0).date()).collect()
    lists = {row.item_id: row.neighbour_ids for row in found}
    assert lists["hub"] == ["n0", "n1", "n2"]


def test_the_weights_of_a_large_site_stay_in_range(spark: SparkSession, world: Any) -> None:
    today = world.at(0).date()
    rows = [((world.at(0) - EPOCH).days, "x", "y", 1_000_000 * UNITS)]
    scores = [row.scores[0] for row in nearest(weight_frame(spark, today, rows), today).collect()]
    assert scores == [pytest.approx(1, abs=1e-4)] * 2


@pytest.mark.parametrize(
    ("first", "last", "late", "days"),
    [(0, 24, 0, [0]), (5, 24, 0, [0]), (5, 23, 0, []), (23, 25, 0, [0]), (48, 72, 25, [0, 1, 2])],
)
def test_days_are_done_once_they_are_over(
    world: Any, first: int, last: int, late: int, days: list[int]
) -> None:
    found = days_over(world.window(first, last), late)
    assert found == [world.at(24 * day).date() for day in days]


def fill(world: Any) -> None:
    rng, items = np.random.default_rng(5), ["alien", "brazil", "casablanca"]
    world.arrive(
        *(
            world.row(
                f"e{n}", 3 * n / 4, user_id=f"u{rng.integers(3)}", item_id=items[rng.integers(3)]
            )
            for n in range(70)
        )
    )
    world.run(0, 54)


def test_neighbours_know_nothing_from_after_their_time(world: Any) -> None:
    fill(world)
    report = run_cooccurrence(world.window(0, 54))
    assert report.items == 3
    assert len(world.lake.files(COOCCURRENCE)) == 2
    [path] = world.lake.files(ITEM_NEIGHBOURS)
    assert path == world.lake.hour_path(ITEM_NEIGHBOURS, world.at(53))
    assert pa.parquet.read_schema(path).equals(NEIGHBOUR_SCHEMA)
    assert {row["feature_ts"] for row in world.rows(ITEM_NEIGHBOURS)} == {world.at(54)}
    run_cooccurrence(world.window(0, 50))
    early = neighbour_files(world)
    world.arrive(*(world.row(f"more{n}", 50 + n / 9, user_id="zoe") for n in range(9)))
    world.run(50, 54)
    run_cooccurrence(world.window(0, 50))
    assert neighbour_files(world) == early


def neighbour_files(world: Any) -> dict[str, bytes]:
    kept = (COOCCURRENCE, ITEM_NEIGHBOURS)
    return {path: found for path, found in world.files().items() if path.startswith(kept)}


def test_day_by_day_gives_the_bytes_of_the_whole(world: Any) -> None:
    fill(world)
    run_cooccurrence(world.window(0, 54))
    whole = world.files()
    for path in world.lake.files(COOCCURRENCE):
        world.lake.fs.rm_file(path)
    for end in (30, 54):
        run_cooccurrence(Window.trailing(world.at(end), hours=24))
    found = world.files()
    found.pop("features/item_neighbours/dt=2026-01-11/hr=05/data.parquet")
    assert found == whole


def test_a_window_without_pairs_leaves_no_file(world: Any) -> None:
    world.run(0, 48)
    report = run_cooccurrence(world.window(0, 48))
    assert (report.pairs, report.items) == (0, 0)
    assert world.lake.files(COOCCURRENCE) + world.lake.files(ITEM_NEIGHBOURS) == []
    assert world.lake.watermark(ITEM_NEIGHBOURS) == world.at(48)


def test_hours_without_events_computed_are_refused(world: Any) -> None:
    with pytest.raises(MissingPartition, match="events is not complete"):
        run_cooccurrence(Window(world.at(0), world.at(0) + HOUR))
