"""User sequences: what each user did last, as it stood at the end of an hour.

An hour is computed from the events of its day and, for the hour's users only, from the newest state
before it and the tails of the days since. One hour or a whole year go through the same queries.

A sequence holds the events that belong in one (`spark_jobs.tails`), oldest first, by
(event_ts, event_id). Beside it stand the items that the user is never shown again, whose events may
be older than those of the sequence.
"""

from collections.abc import Sequence
from datetime import date

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from nearline.domains import load_domain
from nearline.lake import EVENTS, Lake
from nearline.reach import SEQUENCE_DAYS, TAKEN_ITEMS
from nearline.schema import (
    EVENT_ID,
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
    epoch_hour,
    hour_of,
    hour_start,
    hours_there,
    read_files,
    remove_stale,
    remove_stale_days,
    write_groups,
)
from spark_jobs.tails import (
    TAIL_SCHEMA,
    USER_TAIL,
    day_files,
    day_tails,
    read_sequence_events,
    write_tails,
)
from spark_jobs.user_states import USER_STATES, past_files

USER_SEQUENCE = "features/user_sequence"

_HOUR_US = 3_600_000_000

SEQUENCE_SCHEMA = pa.schema(
    [
        (USER_ID, pa.string()),
        (FEATURE_TS, TIMESTAMP),
        ("item_ids", pa.list_(pa.string())),
        ("event_types", pa.list_(pa.string())),
        ("event_ts", pa.list_(pa.int64())),
        ("values", pa.list_(pa.float64())),
        ("taken_item_ids", pa.list_(pa.string())),
    ]
)
"""One row a user active in the hour. `event_ts` are microseconds since 1970; no value is 0.

`taken_item_ids` are the last TAKEN_ITEMS items, newest first, of events that hide theirs always.
"""


def update_sequences(spark: SparkSession, window: Window) -> dict[str, int]:
    """Write `features/user_sequence` of the hours of `window`, `partials/user_tail` of their days.

    The events of those hours must be clean already, and the tails of the days before written.
    Returns the rows written, by dataset.
    """
    lake, length = Lake.open(), settings().sequence_length
    taking = load_domain(settings().domain).taking
    hours = sorted({*hours_there(lake, EVENTS, window), *hours_there(lake, USER_SEQUENCE, window)})
    if not hours:
        return {USER_TAIL: 0, USER_SEQUENCE: 0}
    days = sorted({hour_start(hour).date() for hour in hours})
    USER_STATES.remove_later(lake, days[0])
    today = read_sequence_events(spark, lake, day_files(lake, days)).persist()
    tails = write_tails(lake, day_tails(today, length, taking))
    remove_stale_days(lake, USER_TAIL, days, tails, TAIL_SCHEMA)
    past = read_earlier(spark, lake, days, active_users(today, window))
    lake.expand(USER_SEQUENCE, window)
    sequences = write_sequences(lake, sequences_at(today, past, window, length, taking))
    remove_stale(lake, USER_SEQUENCE, hours, sequences, SEQUENCE_SCHEMA)
    today.unpersist()
    return {USER_TAIL: _rows(tails), USER_SEQUENCE: _rows(sequences)}


def active_users(today: DataFrame, window: Window) -> pa.Array:
    """The users with an event in the hours of `window`."""
    users = today.where(hour_within(window).isNotNull()).select(USER_ID).distinct()
    return users.toArrow()[USER_ID].combine_chunks()


def hour_within(window: Window) -> Column:
    """The hour of an event, null outside `window`."""
    hour = hour_of(EVENT_TS)
    return F.when(hour.between(epoch_hour(window.start), epoch_hour(window.end) - 1), hour)


def read_earlier(
    spark: SparkSession, lake: Lake, days: Sequence[date], users: pa.Array
) -> DataFrame:
    """What sequences of `users` on `days` need of all other days (TAIL_SCHEMA)."""
    own = {lake.day_path(USER_TAIL, day) for day in days}
    between = lake.files(USER_TAIL, Window.of_days(days[0], days[-1]))
    files = past_files(lake, days[0], users) + [path for path in between if path not in own]
    return read_files(spark, lake, files, TAIL_SCHEMA, among=(USER_ID, users))


def sequences_at(
    today: DataFrame, past: DataFrame, window: Window, length: int, taking: Sequence[str]
) -> DataFrame:
    """The last `length` events of each user active in an `hour` of `window`, up to the hour's end.

    With the items that events of the types `taking` took until then. `today` holds the events of
    all days with such hours, `past` what those users did on others.
    """
    columns = TAIL_SCHEMA.names
    event = F.struct(
        F.expr(f"unix_micros({EVENT_TS})").alias("ts"), EVENT_ID, ITEM_ID, EVENT_TYPE, VALUE
    )
    users = (
        today.select(*columns, hour_within(window).alias("hour"))
        .unionByName(past.select(*columns, F.lit(None).cast("long").alias("hour")))
        .groupBy(USER_ID)
        .agg(
            F.sort_array(F.collect_list(event)).alias("events"),
            F.collect_set("hour").alias("hours"),
        )
    )
    until, since = f"(hour + 1) * {_HOUR_US}", f"(hour div 24 - {SEQUENCE_DAYS}) * 24 * {_HOUR_US}"
    known = F.expr(f"filter(events, e -> e.ts < {until} and e.ts >= {since})")
    newest = F.expr(f"slice(events, greatest(size(events) - {length - 1}, 1), {length})")
    return (
        users.select(USER_ID, "events", F.explode("hours").alias("hour"))
        .withColumn("events", known)
        .withColumn("taken", F.filter("events", lambda event: event[EVENT_TYPE].isin(list(taking))))
        .withColumn("events", newest)
        .select(
            "hour",
            USER_ID,
            F.col("events.item_id").alias("item_ids"),
            F.col("events.event_type").alias("event_types"),
            F.col("events.ts").alias("event_ts"),
            F.expr("transform(events.value, v -> coalesce(v, 0D))").alias("values"),
            F.expr(f"slice(array_distinct(reverse(taken.item_id)), 1, {TAKEN_ITEMS})").alias(
                "taken_item_ids"
            ),
        )
    )


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
