"""Journals on disk: one file of JSON lines for each arrival hour and writer.

`<root>/dt=YYYY-MM-DD/hr=HH/<writer>.jsonl` holds rows of RAW_SCHEMA in the order in which they
arrived; a line of blanks was forgotten. `<root>/lock` is held, shared, by whoever stamps and
writes, and alone by whoever closes hours; it contains the time before which nothing may be stamped
any more.
"""

import fcntl
import json
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nearline.replacing import to_disk
from nearline.schema import RECEIVED_TS

log = logging.getLogger(__name__)

_STAMP_BYTES = 64
_RECEIVED = RECEIVED_TS.encode()
_JSON = json.JSONEncoder(separators=(",", ":"))


def hour_folder(root: Path, hour: datetime) -> Path:
    """Where the journals of one arrival hour lie."""
    return root / f"dt={hour:%Y-%m-%d}" / f"hr={hour:%H}"


def journal_hours(root: Path) -> list[datetime]:
    """The hours that have journals, oldest first."""
    folders = sorted(root.glob("dt=*/hr=*"))
    return [
        datetime.fromisoformat(f"{folder.parent.name[3:]}T{folder.name[3:]}:00:00+00:00")
        for folder in folders
    ]


def remove_hour(root: Path, hour: datetime) -> int:
    """Remove the journals of an hour that nobody writes to any more; returns how many."""
    folder = hour_folder(root, hour)
    paths = list(folder.glob("*.jsonl"))
    for path in paths:
        path.unlink()
    folder.rmdir()
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()
    return len(paths)


def unstamped(row: Mapping[str, Any]) -> bytes:
    """How the line of a row begins: with all of it but when it arrived, which ends it.

    So it is made before the writer, for which others wait, gives the row its stamp. A row holds
    one value at least.
    """
    told = {name: v for name, v in row.items() if v is not None and name != RECEIVED_TS}
    return _JSON.encode(told).encode()[:-1]


def stamped(begun: bytes, received_ts: datetime) -> bytes:
    """The line of a row that arrived then."""
    return b'%b,"%b":"%b"}\n' % (begun, _RECEIVED, received_ts.isoformat().encode())


def read_hour(root: Path, hour: datetime) -> list[dict[str, Any]]:
    """The rows that arrived in an hour, oldest first, whoever wrote them."""
    paths = sorted(hour_folder(root, hour).glob("*.jsonl"))
    rows = [row for path in paths for row in _read_lines(path)]
    return sorted(rows, key=lambda row: row[RECEIVED_TS])


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole rows of a journal. A crash may tear the end off: that was never confirmed."""
    *lines, _torn = path.read_bytes().split(b"\n")
    return parse_lines(lines, path)


def parse_lines(lines: Sequence[bytes], path: Path | str) -> Iterator[dict[str, Any]]:
    """Ended lines of a journal as rows; a damaged one is told and left out."""
    for number, line in enumerate(lines, start=1):
        if line.isspace():  # blanked
            continue
        try:
            row = json.loads(line)
            row[RECEIVED_TS] = datetime.fromisoformat(row[RECEIVED_TS])
        except (ValueError, KeyError, TypeError):
            log.warning("%s: a line (%d of %d) is damaged and left out", path, number, len(lines))
            continue
        yield row


def whole_lines(path: str, start: int) -> tuple[list[bytes], int]:
    """The lines from `start` on that are ended, and their length in bytes.

    A line that is not ended yet is read when it is; one that a crash tore off never is.
    """
    with open(path, "rb") as journal:
        journal.seek(start)
        data = journal.read()
    length = data.rfind(b"\n") + 1
    return data[:length].split(b"\n")[:-1], length


def sync_hour(root: Path, hour: datetime) -> None:
    """Make sure that what a dead writer left is on disk, before anyone relies on it."""
    for path in hour_folder(root, hour).glob("*.jsonl"):
        to_disk(path)


class HourFile:
    """The journal of one writer and hour, made anew: it never follows a torn line.

    `write` is for one thread at a time; any number may wait in `sync`, and share one fsync. The
    file is closed when nobody holds it any more.
    """

    def __init__(self, root: Path, hour: datetime, writer: str) -> None:
        self.hour = hour
        folder = hour_folder(root, hour)
        folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._path = folder / f"{writer}.jsonl"
        self._fd = os.open(self._path, flags, 0o644)
        self._release = weakref.finalize(self, os.close, self._fd)
        self._written = self._synced = 0
        self._failure: OSError | None = None
        self.ended = False
        self._syncing = threading.Lock()
        for made in (folder, folder.parent, root):
            to_disk(made)

    def write(self, lines: Sequence[bytes]) -> int:
        """Add lines; returns how much is written, for `sync`.

        An OSError ends the file: it takes nothing more, and has none of these lines. Raises one
        where the file has ended before.
        """
        if self.ended:
            raise OSError(f"{self._path} has ended")
        data = memoryview(b"".join(lines))
        try:
            left = data
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError:
            self._end(self._written)
            raise
        self._written += len(data)
        return self._written

    def _end(self, length: int) -> None:
        """Take nothing more, and cut off what nobody is answered for: it is to come again."""
        self.ended = True
        # Where that fails too, it may be there twice: the clean step keeps the first of an id.
        with suppress(OSError):
            os.ftruncate(self._fd, length)
            if not length:
                self._path.unlink()

    def sync(self, written: int) -> None:
        """Return once so much is on disk.

        After a failure the kernel may take the next fsync for a success: all later ones fail too.
        """
        with self._syncing:
            if self._failure:
                raise self._failure
            if self._synced < written:
                reached = self._written
                try:
                    os.fdatasync(self._fd)
                except OSError as error:
                    self._failure = error
                    self._end(self._synced)
                    raise
                self._synced = reached

    def close(self) -> None:
        """Let go of the file, with all of it on disk."""
        self.sync(self._written)
        self._release()


class HourLock:
    """The lock between those who stamp and those who close hours."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o644)

    @contextmanager
    def stamping(self) -> Iterator[datetime]:
        """Held by who stamps and writes; gives the time before which nothing may be stamped."""
        with self._held(fcntl.LOCK_SH):
            yield self.barred()

    def bar(self, before: datetime) -> None:
        """Wait for all who are stamping; from then on nothing is stamped before that time."""
        with self.alone() as bar:
            bar(before)

    @contextmanager
    def alone(self) -> Iterator[Callable[[datetime], None]]:
        """Held while nobody stamps; gives what keeps anyone from stamping before a time."""
        with self._held(fcntl.LOCK_EX):
            yield self._bar

    def _bar(self, before: datetime) -> None:
        text = max(self.barred(), before).isoformat().ljust(_STAMP_BYTES)
        os.pwrite(self._fd, text.encode(), 0)
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)

    def barred(self) -> datetime:
        """The time before which nothing may be stamped: all that was is there to be read."""
        text = os.pread(self._fd, _STAMP_BYTES, 0).decode().strip()
        return datetime.fromisoformat(text) if text else datetime.min.replace(tzinfo=UTC)

    @contextmanager
    def _held(self, how: int) -> Iterator[None]:
        fcntl.flock(self._fd, how)
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)


def barred(root: Path) -> datetime:
    """The time before which nothing may be stamped in the journals of `root` any more."""
    with closing(HourLock(root)) as lock:
        return lock.barred()
