"""What was shown to whom: a log of every list answered, which becomes the lake's `impressions`.

A list is in the log when it is answered, and outlives the process at once; a crash of the machine
may cost what the last second logged (docs/decisions/0006).
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nearline.intake.files import (
    HourLock,
    journal_hours,
    read_hour,
    remove_hour,
    stamped,
    unstamped,
)
from nearline.intake.forgotten import Forgotten, forgotten_root
from nearline.intake.writer import Writer, utc_now
from nearline.lake import Lake, day_of
from nearline.schema import ITEM_ID, RECEIVED_TS, TIMESTAMP, USER_ID
from nearline.settings import settings
from nearline.windows import Window, hour_floor

IMPRESSIONS = "impressions"

IMPRESSION_SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        (USER_ID, pa.string()),
        ("surface", pa.string()),
        ("kind", pa.string()),
        (ITEM_ID, pa.string()),
        ("category", pa.string()),
        ("page", pa.string()),
        ("device", pa.string()),
        ("release", pa.string()),
        ("source", pa.string()),
        ("reason", pa.string()),
        ("experiment", pa.string()),
        ("arm", pa.string()),
        ("item_ids", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float64())),
        ("sources", pa.list_(pa.string())),
        ("propensities", pa.list_(pa.float64())),
        (RECEIVED_TS, TIMESTAMP),
    ]
)
"""A list a row, `item_ids` in the order shown; `item_id` is the item whose like were asked for, or
that the user looked at; `category`, `page` and `device` are what the caller told of the place.

`propensities` are the chances that lots gave each item its place; null where none was drawn, as in
lists logged before there were any: each chance was 1."""


_ORDER = (RECEIVED_TS, "request_id")


@dataclass(frozen=True)
class Impression:
    """One list that was answered. `kind` is what was asked for; no `user_id`: it was anonymous."""

    request_id: str
    kind: str
    release: str
    source: str
    item_ids: list[str]
    scores: list[float]
    sources: list[str]
    propensities: list[float] | None = None
    reason: str | None = None
    user_id: str | None = None
    surface: str | None = None
    item_id: str | None = None
    category: str | None = None
    page: str | None = None
    device: str | None = None
    experiment: str | None = None
    arm: str | None = None


def impressions_root() -> Path:
    """Where the log lies."""
    return settings().intake / "impressions"


class ImpressionLog:
    """One process's log; any number of threads may add."""

    def __init__(self, root: Path, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._writer = Writer(root, clock=clock)
        self._forgotten = Forgotten(forgotten_root())

    @classmethod
    def open(cls) -> "ImpressionLog":
        """The log that the settings name."""
        return cls(impressions_root())

    def add(self, shown: Impression, *, asked: datetime | None = None) -> bool:
        """Log a list; returns False where its user was forgotten since it was `asked` for.

        It may tell what was known of the user before, and by its stamp it would be another
        person's. Raises NotKept when the disk does not take it.
        """
        # Not asdict, which copies every list: this is on the way of every answer.
        begun, lines = unstamped(vars(shown)), list[bytes]()

        def told(stamps: Sequence[datetime]) -> list[bytes]:
            if not self._forgot(shown.user_id, asked):
                lines.append(stamped(begun, stamps[0]))
            return lines

        self._writer.append(1, told, durable=False)
        return bool(lines)

    def _forgot(self, user_id: str | None, since: datetime | None) -> bool:
        """Whether a user was forgotten later than then, as far as anybody knows by now."""
        if user_id is None or since is None:
            return False
        self._forgotten.follow()
        return self._forgotten.tells(user_id, since)

    def flush(self) -> None:
        """Return once all that was logged is on disk. Raises NotKept when that fails."""
        self._writer.flush()

    def close(self) -> None:
        """Let go of the files; the log takes nothing more."""
        self._writer.close()


def close_impressions(lake: Lake, window: Window, now: datetime) -> int:
    """Bring what was shown in `window` into the lake, and mark it complete; returns the lists.

    The same files give the same bytes. An hour whose log was pruned keeps what it has.
    """
    root = impressions_root()
    with closing(HourLock(root)) as lock:
        lock.bar(min(window.end, now))
    total = sum(_write(lake, root, hour) for hour in window.hours())
    lake.mark_complete(IMPRESSIONS, window, rows=total)
    return total


def complete_columns(lake: Lake, window: Window) -> None:
    """Give the days of `window` that an older version wrote the columns that they lack, as nulls.

    SQL reads files side by side, and wants all of them to have all columns.
    """
    days = list(window.days())
    files = lake.files(IMPRESSIONS, Window.of_days(days[0], days[-1]))
    for day in sorted({day_of(path) for path in files if _lacks_columns(lake, path)}):
        whole = Window.of_days(day, day)
        lake.expand(IMPRESSIONS, whole)
        for hour in map(Window.of_hour, whole.hours()):
            rows = lake.read(IMPRESSIONS, hour, schema=IMPRESSION_SCHEMA)
            lake.write_hour(IMPRESSIONS, hour.start, rows, sort_by=_ORDER)


def _lacks_columns(lake: Lake, path: str) -> bool:
    with lake.fs.open(path, "rb") as source:
        return not set(IMPRESSION_SCHEMA.names).issubset(pq.read_schema(source).names)


def prune_impressions(lake: Lake, before: datetime) -> int:
    """Remove the log of hours that ended before then, brought into the lake first; how many."""
    root = impressions_root()
    hours = [hour for hour in journal_hours(root) if hour < hour_floor(before)]
    for hour in hours:
        _write(lake, root, hour)
    return sum(remove_hour(root, hour) for hour in hours)


def _write(lake: Lake, root: Path, hour: datetime) -> int:
    rows = read_hour(root, hour)
    if rows:
        table = pa.Table.from_pylist(rows, schema=IMPRESSION_SCHEMA)
        table = table.filter(pc.invert(Forgotten.load().rows(table)))
        lake.expand(IMPRESSIONS, Window.of_hour(hour))
        lake.write_hour(IMPRESSIONS, hour, table, sort_by=_ORDER)
    return len(rows)
