"""Following journals: what any process of this machine adds is read once, as it comes."""

import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nearline.intake.door import settled
from nearline.intake.files import hour_folder, journal_hours, parse_lines
from nearline.records import Event
from nearline.schema import RECEIVED_TS, REFUSED
from nearline.windows import HOUR, Window, hour_floor


class Follower:
    """Reads the journals under a root from the hour of `since` on. For one thread at a time.

    A poll looks at the files of the hour before, of this one and of the next, where a stamp may
    lie already: a few system calls, so that it can be done for every request.
    """

    def __init__(self, root: Path, *, since: datetime | None = None) -> None:
        """Without `since`, from the oldest hour that there is."""
        hours = [] if since else journal_hours(root)
        since = since or min(hours, default=datetime.max.replace(tzinfo=UTC))
        self._root = root
        self._first = hour_floor(since)
        self._read: dict[str, int] = {}
        self._polled: tuple[datetime, datetime] | None = None
        self._told: list[str] = []

    def poll(self, now: datetime) -> list[dict[str, Any]]:
        """The rows that were added since the last poll, in the order of their stamps."""
        found: list[dict[str, Any]] = []
        read: dict[str, int] = {}
        for path, size in (file for folder in self._folders(now) for file in _files(folder)):
            read[path] = self._read.get(path, 0)
            if size > read[path]:
                lines, length = whole_lines(path, read[path])
                found.extend(parse_lines(lines, path))
                read[path] += length
        self._read = read
        self._first = hour_floor(now) - HOUR
        return sorted(found, key=lambda row: row[RECEIVED_TS])

    def _folders(self, now: datetime) -> list[str]:
        """Where files may have grown since the last poll; made anew only as hours go by."""
        hour = hour_floor(now)
        first = min(self._first, hour - HOUR)
        if self._polled != (first, hour):
            hours = Window(first, hour + 2 * HOUR).hours()
            self._told = [str(hour_folder(self._root, each)) for each in hours]
            self._polled = first, hour
        return self._told


def accepted_events(rows: Iterable[dict[str, Any]]) -> Iterator[Event]:
    """The events of journal rows, as the lake will have them; refused rows are left out."""
    for row in rows:
        if not row["source"].endswith(REFUSED):
            yield settled(Event.from_raw(row), row[RECEIVED_TS])


def _files(folder: str) -> Iterator[tuple[str, int]]:
    """The journals in a folder with their sizes; none where there is no folder."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".jsonl"):
                    yield entry.path, entry.stat().st_size
    except FileNotFoundError:
        return


def whole_lines(path: str, start: int) -> tuple[list[bytes], int]:
    """The lines from `start` on that are ended, and their length in bytes.

    A line that is not ended yet is read when it is; one that a crash tore off never is.
    """
    with open(path, "rb") as journal:
        journal.seek(start)
        data = journal.read()
    length = data.rfind(b"\n") + 1
    return data[:length].split(b"\n")[:-1], length
