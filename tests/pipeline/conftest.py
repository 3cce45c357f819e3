"""A lake with clean events and their partials, as Spark would leave it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyarrow as pa
import pytest

from nearline.domains import load_domain
from nearline.lake import CATALOGUE, EVENTS, Lake, hour_groups
from nearline.schema import EVENT_SCHEMA, EVENT_TS, ITEM_SCHEMA
from nearline.settings import settings
from nearline.windows import Window
from spark_jobs.partials import KEYS, SCHEMAS, hourly_partials

Row = Mapping[str, Any]


def write_clean(
    lake: Lake, rows: Iterable[Row], categories: Mapping[str, list[str]], window: Window
) -> None:
    """Write events, their partials and a catalogue; every hour of `window` is complete."""
    kinds = load_domain(settings().domain).event_types
    events = pa.Table.from_pylist(list(rows), schema=EVENT_SCHEMA)
    for hour, table in hour_groups(events, EVENT_TS):
        lake.write_hour(EVENTS, hour, table)
        told = table.append_column(
            "categories",
            pa.array(
                [categories.get(i) for i in table["item_id"].to_pylist()], pa.list_(pa.string())
            ),
        ).append_column(
            "weight",
            pa.array([kinds[kind].weight for kind in table["event_type"].to_pylist()]),
        )
        for dataset, partial in hourly_partials(told, hour).items():
            lake.write_hour(dataset, hour, partial, sort_by=KEYS[dataset])
    items = [
        {
            "item_id": i,
            "title": i,
            "categories": c,
            "created_ts": window.start,
            "available": True,
        }
        for i, c in categories.items()
    ]
    lake.write_snapshot(CATALOGUE, pa.Table.from_pylist(items, schema=ITEM_SCHEMA))
    for dataset in SCHEMAS:
        lake.mark_complete(dataset, window, rows=0)


@pytest.fixture(scope="session")
def clean_lake() -> Callable[[Lake, Iterable[Row], Mapping[str, list[str]], Window], None]:
    """See `write_clean`."""
    return write_clean
