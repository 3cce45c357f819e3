"""Item-to-item co-occurrence: which items the same users turn to within a few steps of a day.

Two items at distance d <= 10 in a user's day count 1/d. Weights are summed as whole numbers (of
1/2520, the least common multiple of 1 to 10), so the sum is the same in any order.

A day is written once it is over, and again while late events may still change it. The day in
progress is counted afresh for each list of neighbours, up to the list's own time.
"""

from collections.abc import Sequence
from datetime import date, datetime

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import Window as Over
from pyspark.sql import functions as F

from nearline.lake import EVENTS, Lake
from nearline.schema import EVENT_ID, EVENT_TS, FEATURE_TS, ITEM_ID, TIMESTAMP, USER_ID
from nearline.windows import HOUR, Window
from spark_jobs.partitions import (
    DAY,
    EPOCH,
    epoch_hour,
    map_groups,
    midnight,
    read_files,
    remove_stale,
    remove_stale_days,
    write_groups,
)
from spark_jobs.sequences import read_sequence_events

COOCCURRENCE = "partials/cooccurrence"
ITEM_NEIGHBOURS = "features/item_neighbours"

FARTHEST = 10
UNITS = 2520
"""The weight of one pair at distance 1; every distance divides it."""
DAY_EVENTS = 1000
"""Of a user's day no more than this many events count, the newest: nobody outweighs the rest."""
NEIGHBOURS = 50
HALF_LIFE_DAYS = 30
HISTORY_DAYS = 180
"""Pairs older than this many days have decayed to less than 2 % and are left out."""
SHRINKAGE = 5
"""Pairs at distance 1 that are missing to a full score: few meetings prove little."""

PRECISION = 1000
"""Faded weights are kept as whole thousandths of a unit, so that they add up the same."""

PAIR_SCHEMA = pa.schema(
    [
        ("day", pa.int32()),
        (ITEM_ID, pa.string()),
        ("neighbour_id", pa.string()),
        ("units", pa.int64()),
    ]
)
"""One row for a pair and a direction. `day` counts from 1970, `units` is the weight in 1/2520."""

NEIGHBOUR_SCHEMA = pa.schema(
    [
        (ITEM_ID, pa.string()),
        (FEATURE_TS, TIMESTAMP),
        ("neighbour_ids", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float64())),
    ]
)
"""One row for an item that has met another: the nearest first, scores above 0 up to 1."""


def days_over(window: Window, late_hours: int) -> list[date]:
    """The days to write for `window`: those that are over at its end and that it can change."""
    reach = Window(window.start - late_hours * HOUR, window.end)
    return [day for day in reach.days() if midnight(day) + DAY <= window.end]


def write_days(spark: SparkSession, days: Sequence[date]) -> int:
    """Write `partials/cooccurrence` of whole days in a row; returns the pairs.

    The events of those days must be clean already.
    """
    if not days:
        return 0
    lake = Lake.open()
    window = Window(midnight(days[0]), midnight(days[-1]) + DAY)
    events = read_sequence_events(spark, lake, lake.files(EVENTS, window))
    written = write_pairs(lake, events)
    remove_stale_days(lake, COOCCURRENCE, days, written, PAIR_SCHEMA)
    return sum(share.rows for share in written)


def item_neighbours(spark: SparkSession, end: datetime) -> int:
    """Write `features/item_neighbours` as known at `end`, a whole hour; returns the items.

    Counts the days that `write_days` wrote, and the events before `end` of the day in progress.
    """
    lake, today = Lake.open(), midnight(end.date())
    past = lake.files(COOCCURRENCE, Window(today - HISTORY_DAYS * DAY, today))
    pairs = read_files(spark, lake, past, PAIR_SCHEMA)
    if today < end:
        begun = Window(today, end)
        events = read_sequence_events(spark, lake, lake.files(EVENTS, begun), begun)
        met = map_groups(by_day(events), ["day"], lambda _, day: day_pairs(day), PAIR_SCHEMA)
        pairs = pairs.unionByName(met)
    return write_neighbours(lake, nearest(pairs, end.date()), end)


def by_day(events: DataFrame) -> DataFrame:
    """Adds `day`, in days since 1970."""
    return events.withColumn("day", F.expr(f"unix_date(to_date({EVENT_TS}))"))


def day_pairs(events: pa.Table) -> pa.Table:
    """The pairs (PAIR_SCHEMA, in no order) of one `day` of events of sequences.

    `events` has the columns of TAIL_SCHEMA and `day`, and at least one row.
    """
    order = [(USER_ID, "ascending"), (EVENT_TS, "descending"), (EVENT_ID, "descending")]
    events = events.sort_by(order).combine_chunks()
    ids = events[ITEM_ID].chunk(0).dictionary_encode()
    users = events[USER_ID].chunk(0).dictionary_encode().indices.to_numpy()
    newest = np.arange(len(users)) - np.searchsorted(users, users) < DAY_EVENTS
    users, items = users[newest], ids.indices.to_numpy()[newest]
    steps = [_at_distance(users, items, step) for step in range(1, FARTHEST + 1)]
    summed = (
        pa.concat_tables(steps)
        .group_by([ITEM_ID, "neighbour_id"], use_threads=False)
        .aggregate([("units", "sum")])
    )
    columns = {
        "day": pa.repeat(events["day"][0], summed.num_rows),
        ITEM_ID: ids.dictionary.take(summed[ITEM_ID]),
        "neighbour_id": ids.dictionary.take(summed["neighbour_id"]),
        "units": summed["units_sum"],
    }
    return pa.table(columns).cast(PAIR_SCHEMA)


def _at_distance(users: np.ndarray, items: np.ndarray, step: int) -> pa.Table:
    """The pairs of rows `step` apart that belong to one user and two items, in both directions."""
    paired = (users[step:] == users[:-step]) & (items[step:] != items[:-step])
    one, other = items[step:][paired], items[:-step][paired]
    return pa.table(
        {
            ITEM_ID: np.concatenate([one, other]),
            "neighbour_id": np.concatenate([other, one]),
            "units": np.full(2 * len(one), UNITS // step, dtype=np.int64),
        }
    )


def nearest(pairs: DataFrame, today: date) -> DataFrame:
    """The best NEIGHBOURS of each item: `neighbour_ids` and `scores`, best first.

    A weight w fades by half every HALF_LIFE_DAYS before `today`. With W(i) for the sum of an
    item's weights, the score is w(i, j) / (sqrt(W(i) W(j)) + SHRINKAGE), above 0 and below 1.
    """
    age = (today - EPOCH.date()).days - F.col("day")
    faded = F.round(F.col("units") * F.pow(F.lit(0.5), age / HALF_LIFE_DAYS) * PRECISION)
    weights = pairs.groupBy(ITEM_ID, "neighbour_id").agg(F.sum(faded.cast("long")).alias("weight"))
    total = F.sum("weight").over(Over.partitionBy(ITEM_ID))
    other = F.sum("weight").over(Over.partitionBy("neighbour_id"))
    both = F.col("total").cast("double") * F.col("other")
    score = F.col("weight") / (F.sqrt(both) + SHRINKAGE * UNITS * PRECISION)
    best = Over.partitionBy(ITEM_ID).orderBy(F.desc("score"), "neighbour_id")
    return (
        weights.where("weight > 0")
        .withColumns({"total": total, "other": other})
        .withColumn("score", score)
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


def write_pairs(lake: Lake, events: DataFrame) -> list[Row]:
    """Write the pairs of each day of events."""

    def write(key: tuple, table: pa.Table) -> list[tuple]:
        start = EPOCH + key[0] * DAY
        pairs = day_pairs(table)
        lake.write_day(COOCCURRENCE, start.date(), pairs, sort_by=[ITEM_ID, "neighbour_id"])
        return [(COOCCURRENCE, epoch_hour(start), None, pairs.num_rows)]

    return write_groups(by_day(events), ["day"], write)


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
