"""Removing users from journals that are being written and followed: their lines become blanks.

A file keeps its length, so that writers append and followers go on where they were.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa

from nearline.erasure import Since, owners
from nearline.intake.files import HourLock, whole_lines
from nearline.intake.impressions import impressions_root
from nearline.schema import EVENT_TS, RECEIVED_TS, REFUSED, TIMESTAMP, USER_ID
from nearline.settings import settings

_SHOWN = pa.schema([(USER_ID, pa.string()), (RECEIVED_TS, TIMESTAMP)])
_ARRIVED = pa.schema(
    [*_SHOWN, *((name, pa.string()) for name in (EVENT_TS, "source", "attributes"))]
)

_REFUSED = f'{REFUSED}"'.encode()
"""What a line of a refused row holds."""

_USERS = re.compile(rb'"%b":("[^"\\]*(?:\\.[^"\\]*)*")' % USER_ID.encode()).findall
"""The users that a line has, each as JSON: far cheaper than to read the line as a row."""


@dataclass(frozen=True)
class JournalFile:
    """A journal of events or impressions; `columns` are what forgetting reads of a row."""

    root: Path
    path: str
    columns: pa.Schema

    @property
    def place(self) -> str:
        """What the journal is one of: `intake`, or a part of it."""
        below = self.root.relative_to(settings().intake)
        return "/".join(("intake", *below.parts))

    def found(self, since: Since) -> dict[str, int]:
        """How many lines tell of each user of `since`, of those that any does."""
        # The last one is not ended: a crash may have torn it off.
        lines = Path(self.path).read_bytes().split(b"\n")
        return Counter(user for user in self._owners(lines, since) if user is not None)

    def drop(self, since: Since) -> None:
        """Overwrite the lines that tell of the users of `since`; they are gone from the disk.

        Ended lines do not change: nobody who writes has to wait while they are searched.
        """
        ended, length = whole_lines(self.path, 0)
        told = self._told(ended, 0, since)
        with open(self.path, "r+b") as journal:
            with closing(HourLock(self.root)) as lock, lock.alone():
                journal.seek(length)
                told += self._told(journal.read().split(b"\n"), length, since)
                there = os.fstat(journal.fileno()).st_size
                for start, end in told:
                    if end <= there:  # a disk that was full may have cut off what was read
                        os.pwrite(journal.fileno(), b" " * (end - start), start)
            os.fdatasync(journal.fileno())

    def _told(self, lines: Sequence[bytes], start: int, since: Since) -> list[tuple[int, int]]:
        """Where the lines that tell of a user begin and end, when the first begins at `start`."""
        starts = list(accumulate((len(line) + 1 for line in lines), initial=start))[:-1]
        found = zip(lines, starts, self._owners(lines, since), strict=True)
        return [(place, place + len(line)) for line, place, user in found if user is not None]

    def _owners(self, lines: Sequence[bytes], since: Since) -> list[str | None]:
        """Of each line the user that it tells of. A damaged one tells of whom it names."""
        quoted = {json.dumps(user).encode() for user in since}
        found: list[str | None] = [None] * len(lines)
        rows: dict[int, Mapping[str, Any]] = {}
        for number, line in enumerate(lines):
            if quoted.isdisjoint(_USERS(line)) and _REFUSED not in line and _looks_whole(line):
                continue
            row = _row(line)
            if row is None:
                found[number] = _named(line, since)
            else:
                rows[number] = row
        table = pa.Table.from_pylist(list(rows.values()), schema=self.columns)
        for number, owner in zip(rows, owners(table, since).to_pylist(), strict=True):
            found[number] = owner
        return found


def journal_files() -> Iterator[JournalFile]:
    """Every journal of events and impressions of the settings' intake."""
    for root, columns in ((settings().intake, _ARRIVED), (impressions_root(), _SHOWN)):
        for path in sorted(root.glob("dt=*/hr=*/*.jsonl")):
            yield JournalFile(root, str(path), columns)


def _row(line: bytes) -> Mapping[str, Any] | None:
    """A line as a row, if it can be read."""
    try:
        row = json.loads(line)
        return {**row, RECEIVED_TS: datetime.fromisoformat(row[RECEIVED_TS])}
    except (ValueError, KeyError, TypeError):
        return None


def _looks_whole(line: bytes) -> bool:
    """Whether a line is blank, or ends with a stamp and has no page that a crash left empty."""
    return (line.endswith(b'"}') and b"\0" not in line) or not line.strip()


def _named(line: bytes, since: Since) -> str | None:
    """The first user of `since` whose id is anywhere in a line."""
    return next((user for user in since if json.dumps(user)[1:-1].encode() in line), None)
