"""Clean: raw arrivals to events by the hour they happened, and to quarantine with a reason.

What becomes of a raw row depends on the row, the domain, the catalogue and on the ids that arrived
before it, never on what arrives later. So only the rows that arrived in a window are judged; of
what arrived before, the stored ids tell which are repeated. An event hour that a window touches is
written anew, whole: what is stored and arrived at other times, and what is accepted now.

Each raw row ends in exactly one place, and the same rows end in the same places whether windows are
run one by one, in bulk, again, or out of order: where an older window takes an id first that a
later one had accepted, the later arrival hour is judged again with it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import Window as Over
from pyspark.sql import functions as F

from nearline.domains import Domain, EventType, load_domain
from nearline.errors import MissingPartition
from nearline.lake import CATALOGUE, EVENTS, QUARANTINE, RAW, Lake
from nearline.schema import (
    CLOCK_SKEW,
    EVENT_ID,
    EVENT_SCHEMA,
    EVENT_TS,
    EVENT_TYPE,
    ITEM_ID,
    ITEM_SCHEMA,
    LARGEST_VALUE,
    QUARANTINE_SCHEMA,
    RAW_SCHEMA,
    RECEIVED_TS,
    REFUSED,
    TIMESTAMP,
    USER_ID,
    VALUE,
)
from nearline.settings import Settings, settings
from nearline.windows import HOUR, Window
from spark_jobs.partials import KEYS, SCHEMAS, hourly_partials
from spark_jobs.partitions import (
    epoch_hour,
    expand_hours,
    files_of,
    hour_of,
    hour_start,
    hours_there,
    read_files,
    remove_stale,
    write_groups,
)

BROADCAST_ITEMS = 1_000_000

ACCEPTED = "accepted"
DUPLICATE = "duplicate"
BOT = "bot"
_ID_COLUMNS = (EVENT_ID, RECEIVED_TS)
ID_PATTERN = r"^[^\x00-\x1f\x7f]{1,256}\z"
TIME_PATTERN = r"^\d{4}-\d{2}-\d{2}[T ]"


@dataclass(frozen=True)
class Rules:
    """What a raw row must satisfy.

    `late_hours`: an event may arrive this many hours after the hour in which it happened, and a
    repeated event id counts as a duplicate for as long. `bot_events_per_minute`: a user with more
    events in one minute, among those that arrived in the same hour, is taken for a bot.
    """

    domain: Domain
    late_hours: int
    bot_events_per_minute: int

    @classmethod
    def of(cls, settings: Settings) -> "Rules":
        """The rules that the settings name."""
        return cls(
            load_domain(settings.domain), settings.late_hours, settings.bot_events_per_minute
        )


@dataclass(frozen=True)
class CleanReport:
    """`accepted` and `quarantined` (by reason) add up to the raw rows that arrived in the window.

    `hours` are the event hours that were written again: those that anything arrived for.
    `rows` counts what was written, by dataset.
    """

    accepted: int
    quarantined: dict[str, int]
    hours: list[datetime]
    rows: dict[str, int] = field(default_factory=dict)


def clean_hours(spark: SparkSession, window: Window) -> CleanReport:
    """Clean what arrived in `window`: write events, quarantine and partials of the hours touched.

    Raises MissingPartition when raw hours of the window were not closed, or without a catalogue.
    """
    lake, rules = Lake.open(), Rules.of(settings())
    lake.require_complete(RAW, window)
    catalogue = read_catalogue(spark, lake)
    arrived = [epoch_hour(hour) for hour in window.hours()]
    arrived += overtaken(spark, lake, window, rules)
    raw = with_arrival(read_files(spark, lake, files_of(lake, RAW, arrived), RAW_SCHEMA))
    raw = raw.where(_among("arrival_hour", arrived)).drop("arrival_hour")
    hours = sorted({*touched_hours(raw, rules), *hours_there(lake, EVENTS, window)})
    expand_hours(lake, (EVENTS, *SCHEMAS), hours)
    expand_hours(lake, [QUARANTINE], arrived)
    judged = judge(raw, catalogue, rules, settled_ids(spark, lake, arrived, rules))
    kept = stored_events(spark, lake, hours, arrived, catalogue, rules)
    written = write_hours(lake, judged.unionByName(kept, allowMissingColumns=True), window)
    for dataset, schema in {EVENTS: EVENT_SCHEMA, **SCHEMAS}.items():
        remove_stale(lake, dataset, hours, written, schema)
    remove_stale(lake, QUARANTINE, arrived, written, QUARANTINE_SCHEMA)
    return _report(window, hours, written)


def overtaken(spark: SparkSession, lake: Lake, window: Window, rules: Rules) -> list[int]:
    """The arrival hours after `window` that accepted an id which arrived in `window` as well.

    There are none unless the window is run after later ones, and rows were added to it since.
    """
    done = lake.watermark(EVENTS)
    if done is None or done <= window.end:
        return []
    after = Window(window.end, window.end + rules.late_hours * HOUR)
    ids = read_files(spark, lake, lake.files(RAW, window), RAW_SCHEMA, [EVENT_ID], window)
    again = accepted_ids(spark, lake, after, rules).join(ids, EVENT_ID, "left_semi")
    return sorted(row.arrival_hour for row in again.select("arrival_hour").distinct().collect())


def touched_hours(arrived: DataFrame, rules: Rules) -> list[int]:
    """The event hours (epoch hours) that arrived rows fall in, late ones too."""
    in_time = F.col("event_hour").between(
        F.col("arrival_hour") - rules.late_hours, F.col("arrival_hour")
    )
    times = with_times(arrived.select(EVENT_TS, RECEIVED_TS))
    rows = times.where(in_time).select("event_hour").distinct().collect()
    return [row.event_hour for row in rows]


def settled_ids(spark: SparkSession, lake: Lake, arrived: Sequence[int], rules: Rules) -> DataFrame:
    """The good ids that a row of the `arrived` hours may repeat, and when they arrived.

    They arrived in other hours, no more than `late_hours` before: those that became events, and
    those that were refused only for what arrived with them or before.
    """
    reach = Window(
        hour_start(min(arrived)) - rules.late_hours * HOUR, hour_start(max(arrived)) + HOUR
    )
    columns = [*_ID_COLUMNS, "reason"]
    refused = read_files(
        spark, lake, lake.files(QUARANTINE, reach), QUARANTINE_SCHEMA, columns, reach
    )
    good = with_arrival(refused.where(F.col("reason").isin(DUPLICATE, BOT)).drop("reason"))
    ids = accepted_ids(spark, lake, reach, rules).unionByName(good)
    return ids.where(~_among("arrival_hour", arrived))


def accepted_ids(spark: SparkSession, lake: Lake, window: Window, rules: Rules) -> DataFrame:
    """The ids of the events that arrived in `window`, with `received_ts` and `arrival_hour`."""
    reach = Window(window.start - rules.late_hours * HOUR, window.end)
    events = read_files(spark, lake, lake.files(EVENTS, reach), EVENT_SCHEMA, _ID_COLUMNS, reach)
    first, last = epoch_hour(window.start), epoch_hour(window.end) - 1
    return with_arrival(events).where(F.col("arrival_hour").between(first, last))


def stored_events(
    spark: SparkSession,
    lake: Lake,
    hours: Sequence[int],
    arrived: Sequence[int],
    catalogue: DataFrame,
    rules: Rules,
) -> DataFrame:
    """The stored events of `hours` that did not arrive in `arrived`, told as `judge` tells rows."""
    events = read_files(spark, lake, files_of(lake, EVENTS, hours), EVENT_SCHEMA)
    return (
        with_arrival(events)
        .where(~_among("arrival_hour", arrived))
        .withColumnsRenamed({EVENT_TS: "happened", VALUE: "number"})
        .withColumn("event_hour", hour_of("happened"))
        .withColumn("weight", _by_type(rules.domain.event_types, lambda kind: kind.weight))
        .join(catalogue, ITEM_ID, "left")
    )


def read_catalogue(spark: SparkSession, lake: Lake) -> DataFrame:
    """Item ids with their categories. Raises MissingPartition when no catalogue was loaded."""
    path = lake.snapshot_path(CATALOGUE)
    if not lake.fs.exists(path):
        raise MissingPartition(f"no catalogue at {path}: load items first (`nearline load`)")
    items = read_files(spark, lake, [path], ITEM_SCHEMA, [ITEM_ID, "categories"])
    return F.broadcast(items) if lake.manifest(path).rows <= BROADCAST_ITEMS else items


def with_times(raw: DataFrame) -> DataFrame:
    """Adds `happened` (null when it is no time), `event_hour` and `arrival_hour`.

    A clock that runs ahead by no more than CLOCK_SKEW is put right: nothing happens after it has
    arrived.
    """
    text = F.col(EVENT_TS)
    told = F.when(text.rlike(TIME_PATTERN), text.try_cast("timestamp"))
    skewed = (told > F.col(RECEIVED_TS)) & (told <= F.col(RECEIVED_TS) + F.lit(CLOCK_SKEW))
    happened = F.when(skewed, F.col(RECEIVED_TS)).otherwise(told)
    timed = with_arrival(raw).withColumn("happened", happened)
    return timed.withColumn("event_hour", hour_of("happened"))


def with_arrival(rows: DataFrame) -> DataFrame:
    """Adds `arrival_hour`."""
    return rows.withColumn("arrival_hour", hour_of(RECEIVED_TS))


def judge(raw: DataFrame, catalogue: DataFrame, rules: Rules, settled: DataFrame) -> DataFrame:
    """Every raw row with its `reason` to be refused, null when it is accepted.

    `settled` tells the good ids of other arrival hours (see `settled_ids`). Adds `happened`,
    `number` (the value), `weight`, `categories`, `event_hour`, `arrival_hour`.
    """
    kinds = rules.domain.event_types
    known = catalogue.select(ITEM_ID, "categories", F.lit(True).alias("known"))
    rows = (
        with_times(raw)
        .withColumn("number", F.col(VALUE).try_cast("double"))
        .withColumn("weight", _by_type(kinds, lambda kind: kind.weight))
        .join(known, ITEM_ID, "left")
        .withColumn("reason", first_reason(rules))
    )
    return refuse_bots(refuse_duplicates(rows, settled, rules), rules)


def first_reason(rules: Rules) -> Column:
    """Why a row is refused on its own account: the first rule that it breaks."""
    kinds = rules.domain.event_types
    number, happened = F.col("number"), F.col("happened")
    needs_item = _by_type(kinds, lambda kind: kind.requires_item)
    needs_value = _by_type(kinds, lambda kind: kind.value is not None and kind.value.required)
    low = _by_type(kinds, lambda kind: kind.value.min if kind.value else -LARGEST_VALUE)
    high = _by_type(kinds, lambda kind: kind.value.max if kind.value else LARGEST_VALUE)
    late = F.col("arrival_hour") - F.col("event_hour") > rules.late_hours
    attributes = F.get_json_object("attributes", "$")
    broken = {
        "missing_event_id": _blank(EVENT_ID),
        "missing_user_id": _blank(USER_ID),
        "bad_id": _ill_formed(EVENT_ID) | _ill_formed(USER_ID) | _ill_formed(ITEM_ID),
        "unknown_event_type": _blank(EVENT_TYPE) | ~F.col(EVENT_TYPE).isin(*kinds),
        "bad_event_ts": happened.isNull(),
        "future_event": happened > F.col(RECEIVED_TS),
        "too_late": late,
        "missing_item": needs_item & _blank(ITEM_ID),
        "unknown_item": needs_item & F.col("known").isNull(),
        "missing_value": needs_value & _blank(VALUE),
        "bad_value": ~_blank(VALUE) & (number.isNull() | F.isnan(number)),
        "value_out_of_range": number.isNotNull() & ~number.between(low, high),
        "bad_attributes": ~_blank("attributes")
        & ~F.coalesce(attributes.startswith("{"), F.lit(False)),
        "refused_at_intake": F.col("source").endswith(REFUSED),
    }
    return F.coalesce(*(F.when(rule, F.lit(name)) for name, rule in broken.items()))


def refuse_duplicates(rows: DataFrame, settled: DataFrame, rules: Rules) -> DataFrame:
    """The first arrival of an event id stands; good rows that repeat it in time are refused."""
    fine = F.col("reason").isNull()
    order = [RECEIVED_TS, *(name for name in RAW_SCHEMA.names if name != RECEIVED_TS)]
    before = F.lag("arrival_hour").over(Over.partitionBy(EVENT_ID, fine).orderBy(*order))
    again = fine & (F.col("arrival_hour") - before <= rules.late_hours)
    return (
        rows.withColumn("judged", F.lit(True))
        .unionByName(settled, allowMissingColumns=True)
        .withColumn("reason", F.when(again, F.lit(DUPLICATE)).otherwise(F.col("reason")))
        .where("judged")
        .drop("judged")
    )


def refuse_bots(rows: DataFrame, rules: Rules) -> DataFrame:
    """A minute in which a user did more than anyone can is refused whole."""
    fine = F.col("reason").isNull()
    minute = F.expr("unix_seconds(happened) div 60")
    together = Over.partitionBy(USER_ID, minute, "arrival_hour", fine)
    burst = fine & (F.count("*").over(together) > rules.bot_events_per_minute)
    return rows.withColumn("reason", F.when(burst, F.lit(BOT)).otherwise(F.col("reason")))


def write_hours(lake: Lake, rows: DataFrame, window: Window) -> list[Row]:
    """Write events and partials by the hour of the event, refused rows by the hour of arrival."""
    fine = F.col("reason").isNull()
    grouped = rows.withColumns(
        {
            "dataset": F.when(fine, EVENTS).otherwise(QUARANTINE),
            "hour": F.when(fine, F.col("event_hour")).otherwise(F.col("arrival_hour")),
        }
    )

    def write(key: tuple, table: pa.Table) -> list[tuple]:
        dataset, hour = key
        if dataset == QUARANTINE:
            return write_quarantine(lake, hour, table)
        return write_events(lake, hour, table, window)

    return write_groups(grouped, ["dataset", "hour"], write)


def write_quarantine(lake: Lake, hour: int, rows: pa.Table) -> list[tuple]:
    """Write one arrival hour of refused rows; reports them by reason."""
    table = rows.select(QUARANTINE_SCHEMA.names).cast(QUARANTINE_SCHEMA)
    start = hour_start(hour)
    order = [RECEIVED_TS, *(name for name in table.column_names if name != RECEIVED_TS)]
    lake.write_hour(QUARANTINE, start, table, inputs=_raw_names([start]), sort_by=order)
    counts = pc.value_counts(table["reason"]).to_pylist()
    return [(QUARANTINE, hour, count["values"], count["counts"]) for count in counts]


def write_events(lake: Lake, hour: int, rows: pa.Table, window: Window) -> list[tuple]:
    """Write one hour of clean events and its partials; reports those that arrived in `window`."""
    rows = rows.sort_by([("happened", "ascending"), (EVENT_ID, "ascending")])
    rows = rows.drop_columns([EVENT_TS, VALUE]).rename_columns(
        {"happened": EVENT_TS, "number": VALUE}
    )
    start = hour_start(hour)
    table = rows.select(EVENT_SCHEMA.names).cast(EVENT_SCHEMA)
    inputs = _raw_names(pc.unique(pc.floor_temporal(table[RECEIVED_TS], unit="hour")).to_pylist())
    lake.write_hour(EVENTS, start, table, inputs=inputs)
    arrived = pc.and_(
        pc.greater_equal(table[RECEIVED_TS], pa.scalar(window.start, TIMESTAMP)),
        pc.less(table[RECEIVED_TS], pa.scalar(window.end, TIMESTAMP)),
    )
    report: list[tuple] = [
        (EVENTS, hour, None, table.num_rows),
        (EVENTS, hour, ACCEPTED, pc.sum(arrived).as_py()),
    ]
    for dataset, partial in hourly_partials(rows, start).items():
        inputs = [f"{EVENTS}/dt={start:%Y-%m-%d}/hr={start:%H}"]
        lake.write_hour(dataset, start, partial, inputs=inputs, sort_by=KEYS[dataset])
        report.append((dataset, hour, None, partial.num_rows))
    return report


def _raw_names(hours: Iterable[datetime]) -> list[str]:
    return [f"{RAW}/dt={hour:%Y-%m-%d}/hr={hour:%H}" for hour in sorted(hours)]


def _by_type(kinds: dict[str, EventType], pick: Callable[[EventType], bool | float]) -> Column:
    """What `pick` says of the row's event type; null for an unknown type."""
    return F.coalesce(
        *(F.when(F.col(EVENT_TYPE) == name, F.lit(pick(kind))) for name, kind in kinds.items())
    )


def _among(name: str, hours: Sequence[int]) -> Column:
    return F.expr(f"{name} in ({', '.join(map(str, hours))})")


def _blank(name: str) -> Column:
    return F.col(name).isNull() | (F.col(name) == "")


def _ill_formed(name: str) -> Column:
    return F.col(name).isNotNull() & ~F.col(name).rlike(ID_PATTERN)


def _report(window: Window, hours: Sequence[int], written: Sequence[Row]) -> CleanReport:
    rows: Counter[str] = Counter()
    quarantined: Counter[str] = Counter()
    accepted = 0
    for share in written:
        if share.part == ACCEPTED:
            accepted += share.rows
        else:
            rows[share.dataset] += share.rows
        if share.dataset == QUARANTINE and window.contains(hour_start(share.hour)):
            quarantined[share.part] += share.rows
    return CleanReport(
        accepted,
        dict(sorted(quarantined.items())),
        [hour_start(hour) for hour in hours],
        dict(rows),
    )
