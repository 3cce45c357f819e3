"""Faded pairs: what a unit counts from day to day, and that sums never depend on states."""

import random
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from nearline.lake import Lake
from nearline.reach import PAIR_DAYS
from spark_jobs.fading import (
    PAIR_STATES,
    block_of,
    day_number,
    faded_pairs,
    worth,
)
from spark_jobs.pairs import COOCCURRENCE, PAIR_SCHEMA

LAST = date(2026, 8, 1)


def test_a_unit_fades_by_half_in_thirty_days(spark: SparkSession) -> None:
    days = {age: LAST - timedelta(days=age) for age in (0, 1, 15, 30, 60, PAIR_DAYS)}
    seen = spark.range(1).select(
        *(worth(day_number(day), block_of(LAST)).alias(str(age)) for age, day in days.items())
    )
    told = seen.first().asDict()
    assert told["30"] * 2 == told["0"]
    assert told["60"] * 4 == told["0"]
    assert told[str(PAIR_DAYS)] * 64 == told["0"]
    assert told["1"] / told["0"] == pytest.approx(0.5 ** (1 / 30), rel=1e-3)
    assert told["15"] / told["0"] == pytest.approx(0.5**0.5, rel=1e-3)


def fill(lake: Lake, days: list[date]) -> None:
    rng = random.Random(9)
    for day in days:
        rows = [
            {"day": day_number(day), "item_id": a, "neighbour_id": b, "units": rng.randrange(1, 99)}
            for a in "xyz"
            for b in "xyz"
            if a != b and rng.random() < 0.4
        ]
        if rng.random() < 0.8:
            lake.write_day(COOCCURRENCE, day, pa.Table.from_pylist(rows, schema=PAIR_SCHEMA))


def summed(spark: SparkSession, lake: Lake, day: date) -> list[tuple[str, str, int]]:
    return sorted(tuple(row) for row in faded_pairs(spark, lake, day).collect())


def test_sums_are_the_same_from_any_state_and_from_none(
    spark: SparkSession, tmp_path: Path
) -> None:
    lake = Lake(str(tmp_path))
    fill(lake, [LAST - timedelta(days=n) for n in range(1, 300)])
    ends = [LAST - timedelta(days=age) for age in (75, 50, 29, 28, 1, 0)]
    fresh = {day: summed(spark, lake, day) for day in ends}
    assert all(len(sums) == 6 for sums in fresh.values())
    for day in ends:
        assert summed(spark, lake, day) == fresh[day]
        PAIR_STATES.write(lake, faded_pairs(spark, lake, day), day)
    assert PAIR_STATES.days(lake) == ends[-3:]
    assert len({block_of(day) for day in ends}) == 3


def test_a_pair_that_nobody_met_for_long_is_forgotten(spark: SparkSession, tmp_path: Path) -> None:
    lake, met = Lake(str(tmp_path)), LAST - timedelta(days=PAIR_DAYS)
    row = {"day": day_number(met), "item_id": "x", "neighbour_id": "y", "units": 64}
    lake.write_day(COOCCURRENCE, met, pa.Table.from_pylist([row], schema=PAIR_SCHEMA))
    assert [(a, b) for a, b, _ in summed(spark, lake, LAST)] == [("x", "y")]
    PAIR_STATES.write(lake, faded_pairs(spark, lake, LAST), LAST)
    assert summed(spark, lake, LAST + timedelta(days=1)) == []
