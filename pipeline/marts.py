"""Marts: one dbt run for a window, then its rows as partitions of the lake.

dbt's tables hold the window alone; the lake holds the history. Feast, training and serving read
only the lake, so nothing but this step opens what dbt built.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from nearline.domains import Domain, load_domain
from nearline.intake.impressions import IMPRESSIONS, complete_columns
from nearline.lake import CATALOGUE, EVENTS, QUARANTINE, Lake, hour_groups
from nearline.schema import FEATURE_TS, TIMESTAMP
from nearline.settings import settings
from nearline.windows import HOUR, Window, midnight
from pipeline.dbt import PROJECT, SCHEMA, Query, build, warehouse
from spark_jobs import partials

DOMAIN = "domain"
HOURLY_CLICKS = "marts/hourly_clicks"


@dataclass(frozen=True)
class Export:
    """Where the rows of a mart go: `dataset` of the lake, made from `inputs`.

    The partition is told by the column `time`: by the hour that begins there, or with `daily` by
    the day; by FEATURE_TS, it is the hour that ends there. `key` are the columns that order the
    rows of one time, by name or number.
    """

    mart: str
    dataset: str
    inputs: tuple[str, ...]
    time: str = FEATURE_TS
    daily: bool = False
    key: str = "1"


def _features(name: str, *inputs: str) -> Export:
    return Export(f"feat_{name}", f"features/{name}", inputs)


EXPORTS = (
    _features("user_activity", partials.USER_HOURLY),
    _features("user_habits", partials.USER_SESSION_HOURLY),
    _features("user_category_affinity", partials.USER_CATEGORY_HOURLY),
    _features("user_searches", partials.USER_QUERY_HOURLY),
    _features("item_popularity", partials.ITEM_HOURLY, CATALOGUE),
    _features("item_conversion", partials.ITEM_HOURLY),
    _features("trending", partials.ITEM_HOURLY, CATALOGUE),
    Export("fct_hourly_quality", "marts/hourly_quality", (EVENTS, QUARANTINE), time="hour"),
    Export(
        "fct_hourly_clicks",
        HOURLY_CLICKS,
        (IMPRESSIONS, EVENTS),
        time="hour",
        key="surface, source, position",
    ),
    Export("fct_sessions", "marts/sessions", (EVENTS,), time="session_start", daily=True),
)
FEATURES = {each.mart: each.dataset for each in EXPORTS if each.time == FEATURE_TS}
"""Feature mart → dataset of the lake."""

DOMAIN_SCHEMA = pa.schema(
    [
        ("event_type", pa.string()),
        ("position", pa.int64()),
        ("funnel_step", pa.int64()),
        ("positive", pa.bool_()),
        ("weight", pa.float64()),
        ("value_min", pa.float64()),
        ("value_max", pa.float64()),
        ("value_required", pa.bool_()),
    ]
)
_HOUR = "_hour"

ATTRIBUTION = 24 * HOUR
"""How far back lists are read that clicks may follow from: `attribution_hours` of the SQL."""


@dataclass(frozen=True)
class MartReport:
    """What one run did: models built, tests passed, rows written for each dataset of the lake."""

    window: Window
    models: int
    tests: int
    rows: dict[str, int]


def mart_names() -> list[str]:
    """The marts that a run builds, read from the project's folders without starting dbt."""
    folders = (PROJECT / "models" / "marts", PROJECT / "models" / "features")
    return sorted(path.stem for folder in folders for path in folder.glob("*.sql"))


def build_marts(window: Window) -> MartReport:
    """Build and test all marts for `window`, then publish their rows in the lake.

    The hours that late events of the window changed are built and published again too. Raises
    MissingPartition when partials of the window are not complete, StepFailed when a model or a test
    fails (nothing is published then). Only one run at a time: DuckDB has one writer.
    """
    lake = Lake.open()
    for dataset in partials.SCHEMAS:
        lake.require_complete(dataset, window)
    lake.write_snapshot(DOMAIN, domain_table(load_domain(settings().domain)))
    changed = lake.changed(EVENTS, window)
    complete_columns(lake, Window(changed.start - ATTRIBUTION, changed.end))
    with warehouse() as query:
        results = build(changed, query)
        rows = {each.dataset: export(lake, each, _rows(query, each), changed) for each in EXPORTS}
    for dataset, count in rows.items():
        lake.mark_complete(dataset, window, rows=count, since=changed.start)
    kinds = [result.node.resource_type.value for result in results]
    return MartReport(window, kinds.count("model"), kinds.count("test"), rows)


def domain_table(domain: Domain) -> pa.Table:
    """The domain's event types as the rows that the SQL joins.

    `position` counts them in the file's order, `funnel_step` in that of the funnel; both from 0.
    """
    rows = [
        {
            "event_type": name,
            "position": position,
            "funnel_step": domain.funnel.index(name) if name in domain.funnel else None,
            "positive": kind.positive,
            "weight": kind.weight,
            "value_min": kind.value.min if kind.value else None,
            "value_max": kind.value.max if kind.value else None,
            "value_required": bool(kind.value and kind.value.required),
        }
        for position, (name, kind) in enumerate(domain.event_types.items())
    ]
    return pa.Table.from_pylist(rows, schema=DOMAIN_SCHEMA)


def export(lake: Lake, to: Export, table: pa.Table, window: Window) -> int:
    """Write rows as one partition for each hour or day of the window; returns their number.

    An hour or day without rows loses its file.
    """
    write = _write_days if to.daily else _write_hours
    write(lake, to, table, window)
    return int(table.num_rows)


def _write_hours(lake: Lake, to: Export, table: pa.Table, window: Window) -> None:
    hours = table[to.time]
    if to.time == FEATURE_TS:
        hours = pc.subtract(hours, pa.scalar(HOUR, pa.duration("us")))
    partitions = dict.fromkeys(window.hours(), table.schema.empty_table())
    partitions |= dict(hour_groups(table.append_column(_HOUR, hours), _HOUR))
    lake.expand(to.dataset, window)

    def write(hour: datetime) -> None:
        rows = partitions[hour].select(table.column_names)
        lake.write_hour(to.dataset, hour, rows, inputs=to.inputs)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, partitions))


def _write_days(lake: Lake, to: Export, table: pa.Table, window: Window) -> None:
    days = pc.floor_temporal(table[to.time], unit="day")
    for day in window.days():
        rows = table.filter(pc.equal(days, pa.scalar(midnight(day), TIMESTAMP)))
        lake.write_day(to.dataset, day, rows, inputs=to.inputs)


def _rows(query: Query, of: Export) -> pa.Table:
    """The rows of a mart, ordered by time and key; the same types from every target."""
    table = query(f"select * from {SCHEMA}.{of.mart} order by {of.time}, {of.key}")
    fields = [pa.field(field.name, _plain(field.type)) for field in table.schema]
    return table.cast(pa.schema(fields))


def _plain(dtype: pa.DataType) -> pa.DataType:
    """A type without what targets add to it: times in UTC, lists of anything that may be null."""
    if pa.types.is_timestamp(dtype):
        return TIMESTAMP
    if pa.types.is_list(dtype):
        return pa.list_(_plain(dtype.value_type))
    return dtype
