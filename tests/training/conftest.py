"""A small lake to learn from."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from nearline.domains import load_domain
from nearline.lake import EVENTS, Lake, hour_groups
from nearline.schema import EVENT_SCHEMA, EVENT_TS, ITEM_SCHEMA
from nearline.settings import settings
from nearline.sources.dataset import conform, upsert_items
from nearline.sources.synthetic import Stream, StreamSpec
from nearline.windows import Window

SPEC = StreamSpec(
    users=40, items=60, events=1800, days=8, end=datetime(2026, 1, 9, tzinfo=UTC), seed=3
)

Events = Callable[[str], pa.Table]


@pytest.fixture
def events() -> Events:
    """Rows `user item type second` as a table of clean events; seconds from 2026-01-01."""

    def make(text: str) -> pa.Table:
        rows = [line.split() for line in text.strip().splitlines()]
        frame = pd.DataFrame(rows, columns=["user_id", "item_id", "event_type", "second"])
        frame["event_id"] = [f"e{number:03}" for number in range(len(frame))]
        start = pd.Timestamp("2026-01-01", tz="UTC")
        frame[EVENT_TS] = start + pd.to_timedelta(frame["second"].astype(int), unit="s")
        frame["item_id"] = frame["item_id"].where(frame["item_id"] != "-", None)
        return conform(frame, EVENT_SCHEMA)

    return make


def clean(raw: pa.Table) -> pa.Table:
    """Raw rows of a made-up stream, which are all good, as clean events."""
    frame = raw.to_pandas()
    frame[EVENT_TS] = pd.to_datetime(frame[EVENT_TS], utc=True)
    frame["value"] = frame["value"].astype(float)
    return conform(frame, EVENT_SCHEMA)


def write_events(lake: Lake, table: pa.Table, window: Window) -> None:
    for hour, rows in hour_groups(table, EVENT_TS):
        lake.write_hour(EVENTS, hour, rows, sort_by=[EVENT_TS, "event_id"])
    lake.mark_complete(EVENTS, window, rows=table.num_rows)


@pytest.fixture(scope="session")
def stream() -> tuple[pa.Table, pa.Table]:
    """A made-up stream: clean events and the catalogue."""
    made = Stream(SPEC, load_domain("entertainment"))
    return clean(pa.concat_tables(made.batches())), made.items()


@pytest.fixture
def lake(home: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """An empty lake; training takes one thread, so that it gets on beside others."""
    monkeypatch.setenv("NEARLINE_TRAIN_THREADS", "1")
    settings.cache_clear()
    return Lake.open()


@pytest.fixture
def full_lake(lake: Lake, stream: tuple[pa.Table, pa.Table]) -> Lake:
    """The stream in the lake."""
    events, items = stream
    upsert_items(lake, items)
    write_events(lake, events, Window(SPEC.start, SPEC.end))
    return lake


@pytest.fixture
def fill(lake: Lake) -> Callable[..., None]:
    """Write events and items (ids, or whole rows) of 2026-01-01 to an empty lake."""

    def write(table: pa.Table, items: list[str] | pa.Table, days: int = 1) -> None:
        if isinstance(items, list):
            rows = {"item_id": items, "title": items}
            items = conform(pd.DataFrame(rows), ITEM_SCHEMA)
        upsert_items(lake, items)
        start = datetime(2026, 1, 1, tzinfo=UTC)
        write_events(lake, table, Window(start, start.replace(day=1 + days)))

    return write


@pytest.fixture(scope="module")
def trained(
    stream: tuple[pa.Table, pa.Table], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The release of a night that ends a day before the stream does, in the module's own home."""
    from training.nightly import train_nightly

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEARLINE_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("NEARLINE_TRAIN_THREADS", "1")
        settings.cache_clear()
        events, items = stream
        upsert_items(Lake.open(), items)
        write_events(Lake.open(), events, Window(SPEC.start, SPEC.end))
        yield train_nightly(Window(SPEC.start, SPEC.end.replace(day=8)))
    settings.cache_clear()
