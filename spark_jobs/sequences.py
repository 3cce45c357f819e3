"""User sequences: what each user did last, as it stood at the end of an hour.

An hour is computed from the events of its day and from the tails of the days before: the newest
events of each user active on a day. The work grows with the days a user was active, not with all
that happened, and one hour or a whole year go through the same two queries.

A sequence holds the events that have an item and a weight above 0 in the domain file, oldest
first, by (event_ts, event_id).
"""

from collections.abc import Sequence
from datetime import date

import pyarrow as pa
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import Window as Over
from pyspark.sql import functions as F

from nearline.domains import Domain, load_domain
from nearline.lake import EVENTS, Lake
from nearline.schema import (
    EVENT_ID,
    EVENT_SCHEMA,
    EVENT_TS,
    EVENT_TYPE,
    FEATURE_TS,
    ITEM_ID,
    TIMESTAMP,
    USER_ID,
    VALUE,
)
from nearline.settings import settings
from nearline.windows import HOUR, Window
from spark_jobs.partitions import (
    DAY,
    epoch_hour,
    hour_start,
    hours_there,
    midnight,
    read_files,
    remove_stale,
    remove_stale_days,
    write_groups,
)

USER_TAIL = "partials/user_tail"
USER_SEQUENCE = "features/user_sequence"

HISTORY_DAYS = 365
"""What a user did longer ago than this many days is left out of the sequence."""

_HOUR_US = 3_600_000_000

TAIL_SCHEMA = pa.schema(
    [EVENT_SCHEMA.field(name) for name in (USER_ID, ITEM_ID, EVENT_TYPE, EVENT_TS, VALUE, EVENT_ID)]
)
SEQUENCE_SCHEMA = pa.schema(
    [
        (USER_ID, pa.string()),
        (FEATURE_TS, TIMESTAMP),
        ("item_ids", pa.list_(pa.string())),
        ("event_types", pa.list_(pa.string())),
        ("event_ts", pa.list_(pa.int64())),
        ("values", pa.list_(pa.float64())),
    ]
)
"""One row a user active in the hour. `event_ts` are microseconds since 1970; no value is 0."""


def update_sequences(spark: SparkSession, window: Window) -> dict[str, int]:
    """Write `features/user_sequence` of the hours of `window`, `partials/user_tail` of their days.

    The events of those hours must be clean already, and the tails of the days before written.
    Returns the rows written, by dataset.
    """
    lake, length = Lake.open(), settings().sequence_length
    hours = sorted({*hours_there(lake, EVENTS, window), *hours_there(lake, USER_SEQUENCE, window)})
    if not hours:
        return {USER_TAIL: 0, USER_SEQUENCE: 0}
    days = sorted({hour_start(hour).date() for hour in hours})
    today = read_sequence_events(spark, lake, day_files(lake, days)).persist()
    tails = write_tails(lake, day_tails(today, length))
    remove_stale_days(lake, USER_TAIL, days, tails, TAIL_SCHEMA)
    past = read_files(spark, lake, history_files(lake, days), TAIL_SCHEMA)
    lake.expand(USER_SEQUENCE, window)
    sequences = write_sequences(lake, sequences_at(today, past, window, length))
    remove_stale(lake, USER_SEQUENCE, hours, sequences, SEQUENCE_SCHEMA)
    today.unpersist()
    return {USER_TAIL: _rows(tails), USER_SEQUENCE: _rows(sequences)}


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
    return [
        path
        for day in days
        for path in lake.files(EVENTS, Window(midnight(day), midnight(day) + DAY))
    ]


def history_files(lake: Lake, days: Sequence[date]) -> list[str]:
    """The tails of the days that sequences on `days` reach back to, those days left out."""
    reach = Window(midnight(days[0]) - HISTORY_DAYS * DAY, midnight(days[-1]) + DAY)
    own = {lake.day_path(USER_TAIL, day) for day in days}
    return [path for path in lake.files(USER_TAIL, reach) if path not in own]


def day_tails(events: DataFrame, length: int) -> DataFrame:
    """The newest `length` events of each user on each day, with the day's first `hour`."""
    newest = Over.partitionBy(USER_ID, "hour").orderBy(F.desc(EVENT_TS), F.desc(EVENT_ID))
    return (
        events.withColumn("hour", F.expr(f"unix_seconds({EVENT_TS}) div 86400 * 24"))
        .withColumn("place", F.row_number().over(newest))
        .where(F.col("place") <= length)
        .drop("place")
    )


def sequences_at(today: DataFrame, past: DataFrame, window: Window, length: int) -> DataFrame:
    """The last `length` events of each user active in an `hour` of `window`, up to the hour's end.

    `today` holds the events of all days with such hours, `past` the tails of other days.
    """
    first, last = epoch_hour(window.start), epoch_hour(window.end) - 1
    own_hour = F.expr(f"unix_seconds({EVENT_TS}) div 3600")
    hour = F.when(own_hour.between(first, last), own_hour)
    columns = TAIL_SCHEMA.names
    active = today.where(hour.isNotNull()).select(USER_ID).distinct()
    event = F.struct(
        F.expr(f"unix_micros({EVENT_TS})").alias("ts"), EVENT_ID, ITEM_ID, EVENT_TYPE, VALUE
    )
    users = (
        today.select(*columns, hour.alias("hour"))
        .unionByName(past.select(*columns, F.lit(None).cast("long").alias("hour")))
        .join(active, USER_ID, "left_semi")
        .groupBy(USER_ID)
        .agg(
            F.sort_array(F.collect_list(event)).alias("events"),
            F.collect_set("hour").alias("hours"),
        )
    )
    until, since = f"(hour + 1) * {_HOUR_US}", f"(hour div 24 - {HISTORY_DAYS}) * 24 * {_HOUR_US}"
    known = F.expr(f"filter(events, e -> e.ts < {until} and e.ts >= {since})")
    newest = F.expr(f"slice(events, greatest(size(events) - {length - 1}, 1), {length})")
    return (
        users.select(USER_ID, "events", F.explode("hours").alias("hour"))
        .withColumn("events", known)
        .withColumn("events", newest)
        .select(
            "hour",
            USER_ID,
            F.col("events.item_id").alias("item_ids"),
            F.col("events.event_type").alias("event_types"),
            F.col("events.ts").alias("event_ts"),
            F.expr("transform(events.value, v -> coalesce(v, 0D))").alias("values"),
        )
    )


def write_tails(lake: Lake, tails: DataFrame) -> list[Row]:
    """Write each day of tails."""

    def write(key: tuple, table: pa.Table) -> list[tuple]:
        day = hour_start(key[0]).date()
        table = table.select(TAIL_SCHEMA.names).cast(TAIL_SCHEMA)
        lake.write_day(USER_TAIL, day, table, sort_by=[USER_ID, EVENT_TS, EVENT_ID])
        return [(USER_TAIL, key[0], None, table.num_rows)]

    return write_groups(tails, ["hour"], write)


def write_sequences(lake: Lake, sequences: DataFrame) -> list[Row]:
    """Write each hour of sequences; they are known from the hour's end on."""

    def write(key: tuple, table: pa.Table) -> list[tuple]:
        hour = hour_start(key[0])
        known = pa.repeat(pa.scalar(hour + HOUR, TIMESTAMP), table.num_rows)
        table = table.append_column(FEATURE_TS, known)
        table = table.select(SEQUENCE_SCHEMA.names).cast(SEQUENCE_SCHEMA)
        lake.write_hour(USER_SEQUENCE, hour, table, sort_by=[USER_ID])
        return [(USER_SEQUENCE, key[0], None, table.num_rows)]

    return write_groups(sequences, ["hour"], write)


def _rows(written: Sequence[Row]) -> int:
    return sum(share.rows for share in written)
