"""Removing users from journals that are being written and followed: their lines become blanks.

A file keeps its length, so that writers append and followers go on where they were.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from nearline.erasure import Since, owners
from nearline.intake.files import HourLock
from nearline.intake.impressions import impressions_root
from nearline.schema import EVENT_TS, RECEIVED_TS, REFUSED, TIMESTAMP, USER_ID
from nearline.settings import settings

_SHOWN = pa.schema([(USER_ID, pa.string()), (RECEIVED_TS, TIMESTAMP)])
_ARRIVED = pa.schema(
    [*_SHOWN, *((name, pa.string()) for name in (EVENT_TS, "source", "attributes"))]
)

_REFUSED = f'{REFUSED}"'.encode()
"""What a line of a refused row holds."""


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
        told = [user for user in self._owners(self._lines(), since) if user is not None]
        return {user: told.count(user) for user in dict.fromkeys(told)}

    def drop(self, since: Since) -> None:
        """Overwrite the lines that tell of the users of `since`; they are gone from the disk."""
        with closing(HourLock(self.root)) as lock, lock.alone(), open(self.path, "r+b") as journal:
            place, lines = 0, self._lines()
            for line, owner in zip(lines, self._owners(lines, since), strict=True):
                if owner is not None:
                    os.pwrite(journal.fileno(), b" " * len(line), place)
                place += len(line) + 1
            os.fdatasync(journal.fileno())

    def _lines(self) -> list[bytes]:
        """All lines, and what follows the last one: a crash may have torn it off."""
        return Path(self.path).read_bytes().split(b"\n")

    def _owners(self, lines: Sequence[bytes], since: Since) -> list[str | None]:
        """Of each line the user that it tells of. A damaged one tells of whom it names."""
        needles = {user: json.dumps(user)[1:-1].encode() for user in since}
        found: list[str | None] = [None] * len(lines)
        rows: dict[int, Mapping[str, Any]] = {}
        for number, line in enumerate(lines):
            named = next((user for user, needle in needles.items() if needle in line), None)
            if named is not None or _REFUSED in line:
                row = _row(line)
                if row is None:
                    found[number] = named
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
