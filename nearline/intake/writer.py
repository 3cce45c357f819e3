"""Stamps what arrives and keeps it on disk: one writer for all threads of a process."""

import os
import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from nearline.errors import NotReady
from nearline.intake.files import HourFile, HourLock
from nearline.windows import HOUR, hour_floor

_MICROSECOND = timedelta(microseconds=1)


def utc_now() -> datetime:
    """The time of this machine."""
    return datetime.now(UTC)


def _no_loss(_: datetime) -> None: ...


class Writer:
    """Appends lines to the journals of a root; any number of threads, and of processes, may.

    `lost` is told the hour of a file of which it is unknown how much the disk has.
    """

    def __init__(
        self,
        root: Path,
        *,
        clock: Callable[[], datetime] = utc_now,
        lost: Callable[[datetime], None] = _no_loss,
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
        durable: bool = True,
    ) -> None:
        """Stamp `count` rows and append the lines that `lines` makes of the stamps.

        They are on disk when this returns; not `durable`, they outlive this process, but a crash
        of the machine only after `flush`. Raises NotReady when the disk does not keep them.
        """
        try:
            with self._appending, self._hours.stamping() as barred:
                stamps = self._stamps(count, barred)
                file = self._file_at(hour_floor(stamps[0]))
                written = self._written = file.write(lines(stamps))
            if durable:
                file.sync(written)
        except OSError as error:
            self._give_up()
            raise NotReady(f"nothing can be kept in {self._root}: {error}") from error
        except BaseException:
            self._give_up()
            raise

    def flush(self) -> None:
        """Return once all that was appended is on disk. Raises NotReady when that fails."""
        with self._appending:
            file, written = self._file, self._written
        try:
            if file is not None:
                file.sync(written)
        except OSError as error:
            self._give_up()
            raise NotReady(f"nothing can be kept in {self._root}: {error}") from error

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
        if self._file is None or self._file.hour != hour:
            if self._file is not None:
                self._file.close()
            name = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
            self._file = HourFile(self._root, hour, name)
        return self._file

    def _give_up(self) -> None:
        """Begin a new file. The old one stays open: others may be waiting for it."""
        with self._appending:
            if self._file is not None:
                self._lost(self._file.hour)
            self._file = None
