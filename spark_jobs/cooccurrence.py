"""Item-to-item co-occurrence: the nearest neighbours of each item (see pairs and fading).

The day in progress is counted afresh for each list of neighbours, up to the list's own time.
"""

from datetime import date, datetime

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import Window as Over
from pyspark.sql import functions as F

from nearline.lake import EVENTS, Lake
from nearline.schema import FEATURE_TS, ITEM_ID, TIMESTAMP
from nearline.windows import HOUR, Window, midnight
from spark_jobs.fading import block_of, day_number, faded_pairs, weighed, worth
from spark_jobs.pairs import PAIR_SCHEMA, UNITS, by_day, day_pairs
from spark_jobs.partitions import (
    epoch_hour,
    map_groups,
    remove_stale,
    write_groups,
)
from spark_jobs.tails import read_sequence_events

ITEM_NEIGHBOURS = "features/item_neighbours"

NEIGHBOURS = 50
SHRINKAGE = 5
"""Pairs at distance 1 that are missing to a full score: few meetings prove little."""

NEIGHBOUR_SCHEMA = pa.schema(
    [
        (ITEM_ID, pa.string()),
        (FEATURE_TS, TIMESTAMP),
        ("neighbour_ids", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float64())),
    ]
)
"""One row for an item that has met another: the nearest first, scores above 0 up to 1."""


def item_neighbours(spark: SparkSession, end: datetime) -> int:
    """Write `features/item_neighbours` as known at `end`, a whole hour; returns the items.

    Counts the days that `write_days` wrote, and the events before `end` of the day in progress.
    """
    lake, today = Lake.open(), end.date()
    weights = faded_pairs(spark, lake, today)
    if midnight(today) < end:
        begun = Window(midnight(today), end)
        events = read_sequence_events(spark, lake, lake.files(EVENTS, begun), begun)
        pairs = map_groups(by_day(events), ["day"], lambda _, day: day_pairs(day), PAIR_SCHEMA)
        weights = weights.unionByName(weighed(pairs, block_of(today)))
    return write_neighbours(lake, nearest(weights, today), end)


def nearest(weights: DataFrame, today: date) -> DataFrame:
    """The best NEIGHBOURS of each item: `neighbour_ids` and `scores`, best first.

    `weights` (WEIGHT_SCHEMA) are worth as on `today`, a pair may have several. With W(i) for the
    sum of an item's weights, the score is w(i, j) / (sqrt(W(i) W(j)) + SHRINKAGE pairs met today),
    above 0 and below 1.
    """
    total = F.sum("weight").over(Over.partitionBy(ITEM_ID))
    other = F.sum("weight").over(Over.partitionBy("neighbour_id"))
    met_today = UNITS * worth(day_number(today), block_of(today))
    middle = F.sqrt(F.col("total").cast("double")) * F.sqrt(F.col("other").cast("double"))
    best = Over.partitionBy(ITEM_ID).orderBy(F.desc("score"), "neighbour_id")
    return (
        weights.groupBy(ITEM_ID, "neighbour_id")
        .agg(F.sum("weight").alias("weight"))
        .withColumns({"total": total, "other": other})
        .withColumn("score", F.col("weight") / (middle + SHRINKAGE * met_today))
        .withColumn("place", F.row_number().over(best))
        .where(F.col("place") <= NEIGHBOURS)
        .groupBy(ITEM_ID)
        .agg(F.sort_array(F.collect_list(F.struct("place", "neighbour_id", "score"))).alias("best"))
        .select(
            ITEM_ID,
            F.col("best.neighbour_id").alias("neighbour_ids"),
            F.col("best.score").alias("scores"),
        )
    )


def write_neighbours(lake: Lake, neighbours: DataFrame, end: datetime) -> int:
    """Write all lists of neighbours as the hour that ends at `end`; returns the items."""

    def write(key: tuple, table: pa.Table) -> list[tuple]:
        known = pa.repeat(pa.scalar(end, TIMESTAMP), table.num_rows)
        table = table.append_column(FEATURE_TS, known)
        table = table.select(NEIGHBOUR_SCHEMA.names).cast(NEIGHBOUR_SCHEMA)
        lake.write_hour(ITEM_NEIGHBOURS, end - HOUR, table, sort_by=[ITEM_ID])
        return [(ITEM_NEIGHBOURS, key[0], None, table.num_rows)]

    hour = epoch_hour(end - HOUR)
    lake.expand(ITEM_NEIGHBOURS, Window.trailing(end, hours=1))
    written = write_groups(neighbours.withColumn("hour", F.lit(hour)), ["hour"], write)
    remove_stale(lake, ITEM_NEIGHBOURS, [hour], written, NEIGHBOUR_SCHEMA)
    return sum(share.rows for share in written)
