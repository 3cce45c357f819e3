"""The events that were held back, as the traffic of the hours that the demo plays."""

import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nearline.intake.raw import merge_raw
from nearline.lake import Lake
from nearline.records import Event
from nearline.schema import EVENT_TS, RECEIVED_TS, TIMESTAMP
from nearline.sources.landing import held_back_path
from nearline.windows import Window

_STEP = timedelta(seconds=5)


def held_back(start: datetime, end: datetime) -> pa.Table:
    """The events that were held back to arrive between two times."""
    events = pq.read_table(held_back_path())
    first, last = (pa.scalar(ts, TIMESTAMP) for ts in (start, end))
    arrivals = events[RECEIVED_TS]
    return events.filter(pc.and_(pc.greater_equal(arrivals, first), pc.less(arrivals, last)))


def deliver(window: Window) -> int:
    """Let the held-back events of past hours arrive in the lake; returns how many."""
    arrivals = held_back(window.start, window.end)
    merge_raw(Lake.open(), arrivals)
    return int(arrivals.num_rows)


def trickle(client: Any, *, since: datetime) -> None:
    """Post the held-back events from `since` on to the API, each when its time comes."""
    for due, rows in _by_step(held_back(since, datetime.max.replace(tzinfo=UTC))):
        time.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds()))
        client.send_events(events=[as_event(row) for row in rows])


def _by_step(events: pa.Table) -> Iterator[tuple[datetime, Sequence[dict[str, Any]]]]:
    """Events in batches of what happens within a few seconds, with the end of these."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    rows = events.sort_by(RECEIVED_TS).to_pylist()
    for step, batch in groupby(rows, lambda row: (row[RECEIVED_TS] - epoch) // _STEP):
        yield epoch + (step + 1) * _STEP, list(batch)


def as_event(row: dict[str, Any]) -> dict[str, Any]:
    """A raw row as the API takes it."""
    fields = {name: row[name] for name in Event.model_fields if row.get(name) is not None}
    if "attributes" in fields:
        fields["attributes"] = json.loads(fields["attributes"])
    return fields | {EVENT_TS: row[EVENT_TS]}
