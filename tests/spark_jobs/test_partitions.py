"""Groups cut from sorted batches, and hours of the lake as Spark reads them."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from nearline.lake import Lake
from nearline.windows import midnight
from spark_jobs.partitions import (
    epoch_hour,
    hour_start,
    read_files,
    remove_stale_days,
    sorted_groups,
    write_groups,
)


def batches(*parts: list[tuple[Any, Any, int]]) -> list[pa.RecordBatch]:
    return [
        pa.RecordBatch.from_pydict(
            {name: [row[n] for row in part] for n, name in enumerate(("a", "b", "value"))},
            schema=pa.schema([("a", pa.string()), ("b", pa.int64()), ("value", pa.int64())]),
        )
        for part in parts
    ]


def test_a_group_goes_on_in_the_next_batch() -> None:
    parts = batches(
        [("x", 1, 0), ("x", 1, 1), ("x", 2, 2)],
        [],
        [("x", 2, 3), ("y", 2, 4)],
        [("y", 2, 5)],
    )
    groups = [(key, rows["value"].to_pylist()) for key, rows in sorted_groups(parts, ["a", "b"])]
    assert groups == [(("x", 1), [0, 1]), (("x", 2), [2, 3]), (("y", 2), [4, 5])]


@pytest.mark.parametrize("parts", [[], [[]], [[], []]])
def test_no_rows_make_no_groups(parts: list[list[tuple[Any, Any, int]]]) -> None:
    assert list(sorted_groups(batches(*parts), ["a", "b"])) == []


def test_every_group_is_written_once(spark: SparkSession) -> None:
    frame = spark.range(1000).selectExpr("id % 7 as hour", "id")

    def write(key: tuple, table: pa.Table) -> list[tuple]:
        return [("x", key[0], None, table.num_rows)]

    written = write_groups(frame, ["hour"], write)
    assert sorted((row.hour, row.rows) for row in written) == [
        (hour, 143 if hour < 6 else 142) for hour in range(7)
    ]


def test_files_are_read_with_the_columns_asked_for(spark: SparkSession, tmp_path: Any) -> None:
    lake, schema = Lake(str(tmp_path)), pa.schema([("id", pa.string()), ("n", pa.int32())])
    for hour in range(3):
        rows = pa.table({"n": [hour], "id": [str(hour)]}).cast(
            pa.schema([schema.field(1), schema.field(0)])
        )
        lake.write_hour("x", hour_start(hour), rows)
    paths = lake.files("x")
    read = read_files(spark, lake, paths, schema).collect()
    assert sorted(map(tuple, read)) == [("0", 0), ("1", 1), ("2", 2)]
    assert sorted(map(tuple, read_files(spark, lake, paths, schema, ["n"]).collect())) == [
        (0,),
        (1,),
        (2,),
    ]
    assert read_files(spark, lake, [], schema).count() == 0


def test_hours_and_days_are_counted_in_utc(tmp_path: Any) -> None:
    ts = datetime(2026, 3, 1, 23, tzinfo=UTC)
    assert hour_start(epoch_hour(ts)) == ts
    assert midnight(ts.date()) == datetime(2026, 3, 1, tzinfo=UTC)


def test_days_without_rows_are_removed(spark: SparkSession, tmp_path: Any) -> None:
    lake, rows = Lake(str(tmp_path)), pa.table({"n": [1]})
    days = [datetime(2026, 3, day, tzinfo=UTC).date() for day in (1, 2)]
    for day in days:
        lake.write_day("x", day, rows)
    frame = spark.createDataFrame([(epoch_hour(midnight(days[1])),)], "hour long")
    written = write_groups(frame, ["hour"], lambda key, _: [("x", key[0], None, 1)])
    remove_stale_days(lake, "x", days, written, rows.schema)
    assert lake.files("x") == [lake.day_path("x", days[1])]
