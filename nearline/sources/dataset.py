"""A dataset on its way into the lake: raw events and items, and how they are written."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from nearline.errors import BadInput
from nearline.intake.items import merge_items
from nearline.intake.raw import merge_raw
from nearline.lake import RAW, Lake
from nearline.schema import EVENT_TS, RECEIVED_TS, TIMESTAMP
from nearline.windows import HOUR, Window, hour_floor


@dataclass(frozen=True)
class Dataset:
    """`events` (RAW_SCHEMA, by arrival) and `items` (ITEM_SCHEMA)."""

    events: pa.Table
    items: pa.Table

    def shifted(self, *, end: datetime, hold_back: float) -> tuple["Dataset", "Dataset"]:
        """The dataset moved in time so that its first `1 - hold_back` share ends just before `end`.

        Returns the history before `end`, and what is held back: the events from `end` on.
        """
        events = self.events.sort_by([(RECEIVED_TS, "ascending"), ("event_id", "ascending")])
        last = min(int(events.num_rows * (1 - hold_back)), events.num_rows) - 1
        if last < 0:
            raise BadInput(f"nothing to load: {events.num_rows} events, {hold_back} held back")
        newest = events[RECEIVED_TS][last].as_py()
        moved = _move(events, end - timedelta(seconds=1) - newest)
        early = pc.less(moved[RECEIVED_TS], pa.scalar(end, TIMESTAMP))
        held = moved.filter(pc.invert(early))
        return replace(self, events=moved.filter(early)), replace(self, events=held)

    def hastened(self, *, since: datetime, speed: float) -> "Dataset":
        """The dataset with all that happens after `since` `speed` times as dense in time."""
        return replace(self, events=_retime(self.events, lambda t: since + (t - since) / speed))


def _move(events: pa.Table, by: timedelta) -> pa.Table:
    """The events with arrival and event times later by `by`."""
    return _retime(events, lambda times: times + by)


def _retime(events: pa.Table, change: Callable[[pd.Series], pd.Series]) -> pa.Table:
    """The events with arrival and event times changed; unreadable event times stay."""
    texts = events[EVENT_TS].to_pandas()
    times = pd.to_datetime(texts, utc=True, errors="coerce", format="ISO8601")
    texts = iso_texts(change(times)).where(times.notna(), texts)
    arrivals = pa.array(change(events[RECEIVED_TS].to_pandas()), from_pandas=True)
    events = events.set_column(
        events.schema.get_field_index(EVENT_TS), EVENT_TS, pa.array(texts, pa.string())
    )
    return events.set_column(
        events.schema.get_field_index(RECEIVED_TS),
        RECEIVED_TS,
        arrivals.cast(TIMESTAMP, safe=False),
    )


def iso_texts(times: pd.Series) -> pd.Series:
    """UTC times as the text that the API writes too: microseconds and the zone."""
    return times.dt.strftime("%Y-%m-%dT%H:%M:%S.%f+00:00")


def conform(frame: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """A frame as a table of `schema`: columns it lacks are null, columns beyond are left out."""
    columns = [
        pa.array(frame[field.name], type=field.type, from_pandas=True)
        if field.name in frame.columns
        else pa.nulls(len(frame), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def append_raw(lake: Lake, events: pa.Table, *, until: datetime | None = None) -> Window | None:
    """Add events to the hours in which they arrived; events that are there already stay single.

    The hours from the first arrival to `until` (the last arrival's hour, without it) are closed.
    Returns that window, or None when there is nothing to add.
    """
    if events.num_rows == 0:
        return None
    first, last = (hour_floor(ts) for ts in _extremes(events))
    window = Window(first, max(until or last + HOUR, last + HOUR))
    merge_raw(lake, events)
    lake.mark_complete(RAW, window, rows=events.num_rows)
    return window


def _extremes(events: pa.Table) -> tuple[datetime, datetime]:
    found = pc.min_max(events[RECEIVED_TS]).as_py()
    return found["min"], found["max"]


def upsert_items(lake: Lake, items: pa.Table) -> int:
    """Put items into the catalogue; an item of the same id is replaced. Returns the items there.

    Items that came in by the API before are brought in first, so that the later one stands.
    """
    return merge_items(lake, items)
