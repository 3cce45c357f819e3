"""The journal of accepted events: what it has answered for is on disk."""

import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from nearline.domains import Domain, load_domain
from nearline.errors import NotReady
from nearline.intake.door import broken_time, event_id_of, read_event, refused_row, settled
from nearline.intake.files import HourFile, HourLock, read_hour, sync_hour, to_line
from nearline.schema import EVENT_ID, RECEIVED_TS, REFUSED, Event
from nearline.settings import settings
from nearline.windows import HOUR, Window, hour_floor

_MICROSECOND = timedelta(microseconds=1)
_Judged = tuple[Any, Event | None, str | None]
"""A row as it came, the event that it is, or the reason why it is none."""


@dataclass(frozen=True)
class Receipt:
    """What became of one row: `reason` when it was refused, `event` when it was accepted."""

    event_id: str | None
    status: Literal["accepted", "duplicate", "refused"]
    reason: str | None = None
    event: Event | None = None


def utc_now() -> datetime:
    """The time of this machine."""
    return datetime.now(UTC)


class Journal:
    """One process's door for events; any number of threads may append, of processes too.

    An event id that was accepted within the last `late_hours` is a duplicate. A journal knows the
    ids of others only from when it was opened: what two processes accept twice, Spark's clean step
    sorts out.
    """

    def __init__(
        self,
        root: Path,
        domain: Domain,
        *,
        late_hours: int,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._root, self._domain, self._late_hours = root, domain, late_hours
        self._clock = clock
        self._appending = threading.Lock()
        self._hours = HourLock(root)
        self._seen = _SeenIds(late_hours)
        self._last = datetime.min.replace(tzinfo=UTC)
        self._file: HourFile | None = None
        self._remember()

    @classmethod
    def open(cls) -> "Journal":
        """The journal that the settings name."""
        config = settings()
        return cls(config.intake, load_domain(config.domain), late_hours=config.late_hours)

    def append(self, rows: Sequence[Any], *, source: str = "api") -> list[Receipt]:
        """Take events in, as the API's JSON gave them; all are on disk when this returns.

        Gives one receipt for each row. A refused row is kept too, marked for quarantine. Raises
        NotReady when the disk does not keep them: then none of these rows was confirmed.
        """
        if not rows:
            return []
        judged = [(row, *read_event(row, self._domain)) for row in rows]
        try:
            with self._appending:
                receipts, file, written = self._write(judged, source)
            file.sync(written)
        except OSError as error:
            self._give_up()
            raise NotReady(f"events cannot be kept in {self._root}: {error}") from error
        except BaseException:
            self._give_up()
            raise
        return receipts

    def recent(self, since: datetime) -> Iterator[Event]:
        """Accepted events that were received at or after `since`, oldest first, each id once."""
        told: set[str] = set()
        for row in self._accepted(since):
            if row[RECEIVED_TS] >= since and row[EVENT_ID] not in told:
                told.add(row[EVENT_ID])
                yield settled(Event.from_raw(row), row[RECEIVED_TS])

    def close(self) -> None:
        """Let go of the files; the journal takes no more events."""
        with self._appending:
            if self._file is not None:
                self._file.close()
                self._file = None
            self._hours.close()

    def _write(self, judged: Sequence[_Judged], source: str) -> tuple[list[Receipt], HourFile, int]:
        """Stamp rows and write those that are new; returns what is to be synced, and how far."""
        with self._hours.stamping() as barred:
            stamps = self._stamps(len(judged), barred)
            file = self._file_at(hour_floor(stamps[0]))
            receipts, lines = [], []
            for (row, event, reason), stamp in zip(judged, stamps, strict=True):
                receipt = self._judge(row, event, reason, stamp)
                receipts.append(receipt)
                if receipt.status == "refused":
                    lines.append(to_line(refused_row(row, source=source, received_ts=stamp)))
                elif receipt.status == "accepted" and event is not None:
                    lines.append(to_line(event.raw(source=source, received_ts=stamp)))
            return receipts, file, file.write(lines)

    def _judge(
        self, row: Any, event: Event | None, reason: str | None, received_ts: datetime
    ) -> Receipt:
        if event is None:
            return Receipt(event_id_of(row), "refused", reason)
        reason = broken_time(event, received_ts, self._late_hours)
        if reason:
            return Receipt(event.event_id, "refused", reason)
        if not self._seen.add(event.event_id, hour_floor(received_ts)):
            return Receipt(event.event_id, "duplicate")
        return Receipt(event.event_id, "accepted", event=settled(event, received_ts))

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
            writer = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
            self._file = HourFile(self._root, hour, writer)
        return self._file

    def _give_up(self) -> None:
        """Begin a new file, and forget the ids of which it is unknown whether the disk has them.

        The file stays open: others may be waiting for it.
        """
        with self._appending:
            if self._file is not None:
                self._seen.forget(self._file.hour)
            self._file = None

    def _remember(self) -> None:
        """Take up the ids that were accepted before."""
        now = self._clock()
        for hour in self._hours_since(now - self._late_hours * HOUR):
            sync_hour(self._root, hour)
        for row in self._accepted(now - self._late_hours * HOUR):
            self._seen.add(row[EVENT_ID], hour_floor(row[RECEIVED_TS]))

    def _accepted(self, since: datetime) -> Iterator[dict[str, Any]]:
        for hour in self._hours_since(since):
            rows = read_hour(self._root, hour)
            yield from (row for row in rows if not row["source"].endswith(REFUSED))

    def _hours_since(self, since: datetime) -> Iterator[datetime]:
        return Window(hour_floor(since), hour_floor(self._clock()) + 2 * HOUR).hours()


class _SeenIds:
    """Event ids with the hour in which they were accepted, for `late_hours`."""

    def __init__(self, late_hours: int) -> None:
        self._kept = late_hours * HOUR
        self._hours: dict[datetime, set[str]] = {}

    def add(self, event_id: str, hour: datetime) -> bool:
        """Whether the id is new; it is known from now on."""
        if hour not in self._hours:
            self._hours = {old: ids for old, ids in self._hours.items() if hour - old <= self._kept}
            self._hours[hour] = set()
        if any(event_id in ids for ids in self._hours.values()):
            return False
        self._hours[hour].add(event_id)
        return True

    def forget(self, hour: datetime) -> None:
        """Take the ids of an hour as never seen."""
        self._hours.pop(hour, None)
