"""Stamps what arrives and keeps it on disk: one writer for all threads of a process."""

import os
import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from nearline.errors import NotKept
from nearline.intake.files import HourFile, HourLock
from nearline.windows import HOUR, hour_floor

_MICROSECOND = timedelta(microseconds=1)


def utc_now() -> datetime:
    """The time of this machine."""
    return datetime.now(UTC)


def _nothing() -> None: ...


class Writer:
    """Appends lines to the journals of a root; any number of threads, and of processes, may.

    `lost` is called when it is unknown what the disk has of what was not answered for yet.
    """

    def __init__(
        self,
        root: Path,
        *,
        clock: Callable[[], datetime] = utc_now,
        lost: Callable[[], None] = _nothing,
    ) -> None:
        self._root, self._clock, self._lost = root, clock, lost
        self._appending = threading.Lock()
        self._hours = HourLock(root)
        self._last = datetime.min.replace(tzinfo=UTC)
        self._file: HourFile | None = None
        self._written = 0

    def append(
        self,
        count: int,
        lines: Callable[[Sequence[datetime]], Sequence[bytes]],
        *,
        wrote: Callable[[], None] = _nothing,
        durable: bool = True,
    ) -> None:
        """Stamp `count` rows and append the lines that `lines` makes of the stamps.

        They are on disk when this returns; not `durable`, they outlive this process, but a crash
        of the machine only after `flush`. `wrote` is called before any other append once they are
        written. Raises NotKept when the disk does not keep them.
        """
        try:
            with self._appending, self._hours.stamping() as barred:
                stamps = self._stamps(count, barred)
                file = self._file_at(hour_floor(stamps[0]))
                written = self._written = file.write(lines(stamps))
                wrote()
            if durable:
                file.sync(written)
        except OSError as error:
            with self._appending:
                self._leave_ended()
            raise NotKept(f"nothing can be kept in {self._root}: {error}") from error

    def flush(self) -> None:
        """Return once all that was appended is on disk. Raises NotKept when that fails."""
        with self._appending:
            file, written = self._file, self._written
        try:
            if file is not None:
                file.sync(written)
        except OSError as error:
            with self._appending:
                self._leave_ended()
            raise NotKept(f"nothing can be kept in {self._root}: {error}") from error

    def close(self) -> None:
        """Let go of the files; nothing more can be appended."""
        with self._appending:
            if self._file is not None:
                self._file.close()
                self._file = None
            self._hours.close()

    def _stamps(self, count: int, barred: datetime) -> list[datetime]:
        """Arrival times, all in one hour, each later than any before, whatever the clock does."""
        first = max(self._clock(), barred, self._last + _MICROSECOND)
        if hour_floor(first + count * _MICROSECOND) > hour_floor(first):
            first = hour_floor(first) + HOUR
        stamps = [first + place * _MICROSECOND for place in range(count)]
        self._last = stamps[-1]
        return stamps

    def _file_at(self, hour: datetime) -> HourFile:
        self._leave_ended()
        if self._file is None or self._file.hour != hour:
            if self._file is not None:
                self._file.close()
            name = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
            self._file = HourFile(self._root, hour, name)
        return self._file

    def _leave_ended(self) -> None:
        """Begin a new file after one that ended; what that one holds is on disk, or told lost.

        Whoever waits for it still finds out what became of theirs.
        """
        if self._file is None or not self._file.ended:
            return
        try:
            self._file.close()
        except OSError:
            self._lost()
        self._file = None
