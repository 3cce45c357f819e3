"""Item pairs by day: which items the same users turn to within a few steps.

Two items at distance d <= 10 in a user's day count 1/d. Weights are summed as whole numbers (of
1/2520, the least common multiple of 1 to 10), so the sum is the same in any order.

A day is written once it is over, and again while late events may still change it.
"""

from collections.abc import Sequence
from datetime import date

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from nearline.lake import EVENTS, Lake
from nearline.schema import EVENT_ID, EVENT_TS, ITEM_ID, USER_ID
from nearline.windows import DAY, HOUR, Window, midnight
from spark_jobs.partitions import (
    EPOCH,
    epoch_hour,
    remove_stale_days,
    write_groups,
)
from spark_jobs.tails import read_sequence_events

COOCCURRENCE = "partials/cooccurrence"

FARTHEST = 10
UNITS = 2520
"""The weight of one pair at distance 1; every distance divides it."""
DAY_EVENTS = 1000
"""Of a user's day no more than this many events count, the newest: nobody outweighs the rest."""

PAIR_SCHEMA = pa.schema(
    [
        ("day", pa.int32()),
        (ITEM_ID, pa.string()),
        ("neighbour_id", pa.string()),
        ("units", pa.int64()),
    ]
)
"""One row for a pair and a direction. `day` counts from 1970, `units` is the weight in 1/2520."""


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
    window = Window.of_days(days[0], days[-1])
    events = read_sequence_events(spark, lake, lake.files(EVENTS, window))
    written = write_pairs(lake, events)
    remove_stale_days(lake, COOCCURRENCE, days, written, PAIR_SCHEMA)
    return sum(share.rows for share in written)


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


def write_pairs(lake: Lake, events: DataFrame) -> list[Row]:
    """Write the pairs of each day of events."""

    def write(key: tuple, table: pa.Table) -> list[tuple]:
        start = EPOCH + key[0] * DAY
        pairs = day_pairs(table)
        lake.write_day(COOCCURRENCE, start.date(), pairs, sort_by=[ITEM_ID, "neighbour_id"])
        return [(COOCCURRENCE, epoch_hour(start), None, pairs.num_rows)]

    return write_groups(by_day(events), ["day"], write)
