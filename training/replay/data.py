"""What is replayed: a file of events, a MovieLens folder, or the lake."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from nearline.errors import BadInput, MissingPartition
from nearline.lake import CATALOGUE, EVENTS, Lake
from nearline.schema import EVENT_ID, EVENT_TS, EVENT_TYPE, ITEM_SCHEMA, TIMESTAMP, USER_ID, VALUE
from nearline.settings import settings
from nearline.sources.dataset import Dataset
from nearline.sources.files import TimeUnit, read_events, read_items
from nearline.sources.movielens import fetch_movielens_100k, read_movielens
from nearline.windows import Window
from training.dataset import EVENTS_READ
from training.dataset import read_events as read_clean

MOVIELENS_100K = "movielens-100k"
"""Stands for a path: the dataset is downloaded once."""


@dataclass(frozen=True)
class Source:
    """Where events come from, and how a file is to be read; without a path it is the lake."""

    path: Path | None = None
    items: Path | None = None
    mapping: Mapping[str, str] | None = None
    items_mapping: Mapping[str, str] | None = None
    event_type: str | None = None
    time_unit: TimeUnit = "iso"

    def read(self) -> tuple[pa.Table, pa.Table]:
        """Events (EVENTS_READ) and the catalogue (ITEM_SCHEMA), which may be empty.

        Raises BadInput for a file that cannot be read, MissingPartition for an empty lake.
        """
        if self.path is None:
            return read_lake()
        if str(self.path) == MOVIELENS_100K or self.path.is_dir():
            return _clean(self._movielens())
        raw = read_events(
            self.path,
            mapping=self.mapping or {},
            event_type=self.event_type,
            time_unit=self.time_unit,
        )
        items = ITEM_SCHEMA.empty_table()
        if self.items is not None:
            items = read_items(
                self.items, mapping=self.items_mapping or {}, option="--items-mapping"
            )
        return _clean(Dataset(raw, items))

    def _movielens(self) -> Dataset:
        assert self.path is not None
        if self.items or self.mapping or self.event_type:
            raise BadInput(
                f"{self.path} is MovieLens, which brings its items, names and types: leave out "
                "--items, --mapping and --event-type"
            )
        there = self.path if self.path.is_dir() else fetch_movielens_100k(settings().home / "cache")
        return read_movielens(there)


def read_lake() -> tuple[pa.Table, pa.Table]:
    """All clean events of the lake, and its catalogue."""
    lake = Lake.open()
    covered = lake.covered(EVENTS)
    if not covered:
        raise MissingPartition(
            "the lake has no clean events: run `nearline load` and `nearline features`, "
            "or give a file with --events"
        )
    events = read_clean(lake, Window(covered[-1].start, covered[-1].end))
    return events, lake.read_snapshot(CATALOGUE, schema=ITEM_SCHEMA)


def _clean(dataset: Dataset) -> tuple[pa.Table, pa.Table]:
    """Raw events with a user, a type and a time that can be read, each id once."""
    raw = dataset.events
    times = pd.to_datetime(raw[EVENT_TS].to_pandas(), utc=True, errors="coerce", format="ISO8601")
    when = pa.array(times.dt.as_unit("us"), from_pandas=True).cast(TIMESTAMP)
    value = pd.to_numeric(raw[VALUE].to_pandas(), errors="coerce")
    events = raw.set_column(raw.schema.get_field_index(EVENT_TS), EVENT_TS, when)
    events = events.set_column(
        events.schema.get_field_index(VALUE), VALUE, pa.array(value, pa.float64(), from_pandas=True)
    )
    events = events.select(EVENTS_READ.names)
    for name in (USER_ID, EVENT_TYPE, EVENT_TS):
        events = events.filter(pc.is_valid(events[name]))
    first = ~events[EVENT_ID].to_pandas().duplicated()
    events = events.filter(pa.array(first))
    if events.num_rows == 0:
        raise BadInput("no event has a user, a type and a time that can be read")
    return events.cast(EVENTS_READ), dataset.items
