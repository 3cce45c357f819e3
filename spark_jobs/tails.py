"""User tails: the newest events of each user on each day, and which events belong in a sequence.

`partials/user_tail` is what the days before tell of a user. An event belongs in a sequence when it
has an item and a weight above 0 in the domain file. Beside the newest events, a tail has the newest
event that takes each item: one of a type that hides its item always.
"""

from collections.abc import Sequence
from datetime import date

import pyarrow as pa
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import Window as Over
from pyspark.sql import functions as F

from nearline.domains import Domain, load_domain
from nearline.lake import EVENTS, Lake
from nearline.reach import TAKEN_ITEMS
from nearline.schema import EVENT_ID, EVENT_SCHEMA, EVENT_TS, EVENT_TYPE, ITEM_ID, USER_ID, VALUE
from nearline.settings import settings
from nearline.windows import Window
from spark_jobs.partitions import hour_start, read_files, write_groups

USER_TAIL = "partials/user_tail"

TAIL_SCHEMA = pa.schema(
    [EVENT_SCHEMA.field(name) for name in (USER_ID, ITEM_ID, EVENT_TYPE, EVENT_TS, VALUE, EVENT_ID)]
)
TAIL_ORDER = (USER_ID, EVENT_TS, EVENT_ID)


def read_sequence_events(
    spark: SparkSession, lake: Lake, files: Sequence[str], window: Window | None = None
) -> DataFrame:
    """The events of partition files that belong in a sequence (TAIL_SCHEMA), as `read_files`."""
    events = read_files(spark, lake, files, EVENT_SCHEMA, TAIL_SCHEMA.names, window)
    return sequence_events(events, load_domain(settings().domain))


def sequence_events(events: DataFrame, domain: Domain) -> DataFrame:
    """The events that belong in a sequence."""
    return events.where(F.col(ITEM_ID).isNotNull() & F.col(EVENT_TYPE).isin(domain.telling))


def day_files(lake: Lake, days: Sequence[date]) -> list[str]:
    """The event files of whole days."""
    return [path for day in days for path in lake.files(EVENTS, Window.of_days(day, day))]


def day_tails(events: DataFrame, length: int, taking: Sequence[str]) -> DataFrame:
    """What `newest` gives of each user on each day, with the day's first `hour`."""
    hour = F.expr(f"unix_seconds({EVENT_TS}) div 86400 * 24")
    return newest(events.withColumn("hour", hour), [USER_ID, "hour"], length, taking)


def newest(events: DataFrame, keys: Sequence[str], length: int, taking: Sequence[str]) -> DataFrame:
    """The last `length` events of each of `keys`, by (event_ts, event_id), and what takes items.

    Of the events of the types `taking`, the last on each item, for the last TAKEN_ITEMS items.
    """
    order = F.desc(EVENT_TS), F.desc(EVENT_ID)
    takes = F.col(EVENT_TYPE).isin(list(taking))
    by_item = Over.partitionBy(*keys, ITEM_ID, takes).orderBy(*order)
    by_key = Over.partitionBy(*keys).orderBy(*order)
    placed = (
        events.withColumn("takes", takes & (F.row_number().over(by_item) == 1))
        .withColumn("taken", F.count_if("takes").over(by_key))
        .withColumn("place", F.row_number().over(by_key))
    )
    kept = (F.col("place") <= length) | (F.col("takes") & (F.col("taken") <= TAKEN_ITEMS))
    return placed.where(kept).drop("takes", "taken", "place")


def write_tails(lake: Lake, tails: DataFrame) -> list[Row]:
    """Write each day of tails."""

    def write(key: tuple, table: pa.Table) -> list[tuple]:
        day = hour_start(key[0]).date()
        table = table.select(TAIL_SCHEMA.names).cast(TAIL_SCHEMA)
        lake.write_day(USER_TAIL, day, table, sort_by=TAIL_ORDER)
        return [(USER_TAIL, key[0], None, table.num_rows)]

    return write_groups(tails, ["hour"], write)
