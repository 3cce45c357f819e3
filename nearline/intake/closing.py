"""Closing hours: what the journals hold becomes raw partitions of the lake."""

from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from nearline.errors import BadInput
from nearline.intake.files import HourLock, barred, journal_hours, read_hour, remove_hour
from nearline.intake.impressions import close_impressions, prune_impressions
from nearline.intake.items import merge_items, prune_items
from nearline.intake.raw import merge_raw
from nearline.intake.writer import utc_now
from nearline.lake import RAW, Lake
from nearline.schema import RAW_SCHEMA
from nearline.settings import settings
from nearline.windows import Window, hour_floor


def close_hours(window: Window, *, clock: Callable[[], datetime] = utc_now) -> int:
    """Bring what arrived in `window` into raw, and mark it complete; returns the raw rows there.

    From now on nothing arrives in those hours that are over. The running hour may be closed early:
    closing it again takes what has come since. Rows that were loaded from elsewhere stay. The clock
    only tells which hours are over. Items and impressions that came in are brought into the lake
    as well. Raises BadInput for hours that have not begun.
    """
    now = clock()
    if window.end > Window.of_hour(now).end:
        raise BadInput(f"{window} cannot be closed: it has hours that have not begun")
    root, lake = settings().intake, Lake.open()
    merge_items(lake)
    close_impressions(lake, window, now)
    with closing(HourLock(root)) as lock:
        lock.bar(min(window.end, now))
    for hour in window.hours():
        _merge(lake, root, hour)
    total = sum(hour.rows for hour in lake.manifests(RAW, window).values())
    lake.mark_complete(RAW, window, rows=total)
    return total


def closed_early() -> datetime | None:
    """When the newest closed hour was closed, where that was before its end."""
    closed = barred(settings().intake)
    return None if closed == hour_floor(closed) else closed


def prune_journals(before: datetime) -> int:
    """Remove the journals of hours that ended before then; returns how many files.

    `before` must leave the hours that live state and the search for duplicates reach back to.
    What they hold is brought into the lake first, should an hour never have been closed.
    """
    root, lake = settings().intake, Lake.open()
    hours = [hour for hour in journal_hours(root) if hour < hour_floor(before)]
    removed = 0
    for hour in hours:
        _merge(lake, root, hour)
        removed += remove_hour(root, hour)
    return removed + prune_impressions(lake, before) + prune_items(before)


def _merge(lake: Lake, root: Path, hour: datetime) -> None:
    if rows := read_hour(root, hour):
        merge_raw(lake, pa.Table.from_pylist(rows, schema=RAW_SCHEMA))
