"""Following journals: what any process of this machine adds is read once, as it comes."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Generic, TypeVar

from nearline.intake.files import hour_folder, journal_hours, whole_lines
from nearline.windows import HOUR, Window, hour_floor

Row = TypeVar("Row")
Stamped = tuple[datetime, Row]
"""A row and the moment at which it arrived."""


class Follower(Generic[Row]):
    """Reads the journals under a root from the hour of `since` on. For one thread at a time.

    A poll looks at the files of the hour before, of this one and of the next, where a stamp may
    lie already: a few system calls, so that it can be done for every request.
    """

    def __init__(
        self,
        root: Path,
        read: Callable[[Sequence[bytes], str], Iterable[Stamped[Row]]],
        *,
        since: datetime | None = None,
    ) -> None:
        """`read` makes rows of a file's lines. Without `since`, from the oldest hour there is."""
        hours = [] if since else journal_hours(root)
        since = since or min(hours, default=datetime.max.replace(tzinfo=UTC))
        self._root, self._rows_of = root, read
        self._first = hour_floor(since)
        self._read: dict[str, dict[str, int]] = {}
        self._polled: tuple[datetime, datetime] | None = None
        self._told: list[str] = []

    def poll(self, now: datetime) -> list[Stamped[Row]]:
        """The rows that were added since the last poll, in the order of their stamps."""
        return [row for rows in self.hours(now) for row in rows]

    def hours(self, now: datetime) -> Iterator[list[Stamped[Row]]]:
        """As `poll`, one hour after the other: however much there is, an hour is in memory.

        What is read counts as read when it is given, so that a poll that breaks off loses nothing.
        """
        folders = self._folders(now)
        for folder in folders:
            if rows := self._added(folder):
                yield sorted(rows, key=itemgetter(0))
        self._read = {folder: self._read[folder] for folder in folders if folder in self._read}
        self._first = hour_floor(now) - HOUR

    def _added(self, folder: str) -> list[Stamped[Row]]:
        found: list[Stamped[Row]] = []
        before, read = self._read.get(folder, {}), dict[str, int]()
        for path, size in _files(folder):
            read[path] = before.get(path, 0)
            if size > read[path]:
                lines, length = whole_lines(path, read[path])
                found.extend(self._rows_of(lines, path))
                read[path] += length
        if read:
            self._read[folder] = read
        return found

    def _folders(self, now: datetime) -> list[str]:
        """Where files may have grown since the last poll; made anew only as hours go by."""
        hour = hour_floor(now)
        first = min(self._first, hour - HOUR)
        if self._polled != (first, hour):
            hours = Window(first, hour + 2 * HOUR).hours()
            self._told = [str(hour_folder(self._root, each)) for each in hours]
            self._polled = first, hour
        return self._told


def _files(folder: str) -> Iterator[tuple[str, int]]:
    """The journals in a folder with their sizes; none where there is no folder."""
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            if entry.name.endswith(".jsonl"):
                # One that a full disk kept empty goes while the others are there to be read.
                with suppress(FileNotFoundError):
                    yield entry.path, entry.stat().st_size
