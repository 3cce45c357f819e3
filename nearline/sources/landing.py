"""Datasets into the lake of the settings, and what is held back of one as live traffic."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq

from nearline.intake.raw import with_stored_ids
from nearline.lake import Lake
from nearline.schema import USER_ID
from nearline.settings import settings
from nearline.sources.dataset import Dataset, append_raw, upsert_items
from nearline.windows import Window


@dataclass(frozen=True)
class Loaded:
    """What was loaded: counts, and the arrival hours that are closed by it (None: no events)."""

    window: Window | None
    events: int
    users: int
    items: int
    held_back: int = 0


def load(dataset: Dataset, *, until: datetime | None = None) -> Loaded:
    """Write a dataset to the lake; the hours up to `until` count as closed."""
    lake, events = Lake.open(), dataset.events
    if dataset.items.num_rows:
        upsert_items(lake, dataset.items)
    window = append_raw(lake, events, until=until)
    return Loaded(window, events.num_rows, len(events[USER_ID].unique()), dataset.items.num_rows)


def load_with_traffic(dataset: Dataset, end: datetime, hold_back: float, speed: float) -> Loaded:
    """Load a dataset so that its history ends at `end`; keep its last `hold_back` share back.

    What is kept back happens after `end`, `speed` times faster than it did, and lies at
    `held_back_path()`.
    """
    history, held = dataset.shifted(end=end, hold_back=hold_back)
    loaded = load(history, until=end)
    traffic = held.hastened(since=end, speed=speed).events
    pq.write_table(with_stored_ids(traffic), held_back_path())
    return Loaded(loaded.window, loaded.events, loaded.users, loaded.items, traffic.num_rows)


def held_back_path() -> Path:
    """Where the events that were kept back as live traffic lie."""
    return settings().home / "held_back.parquet"
