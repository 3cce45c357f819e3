"""The journal of accepted events: what it has answered for is on disk."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from nearline.domains import Domain, load_domain
from nearline.intake.accepted import accepted_ids
from nearline.intake.door import (
    broken_time,
    id_in,
    read_event,
    refused_row,
    settled,
    user_and_time,
)
from nearline.intake.files import stamped, sync_hour, unstamped
from nearline.intake.forgotten import Forgotten
from nearline.intake.seen import SeenIds
from nearline.intake.writer import Writer, utc_now
from nearline.records import Event
from nearline.schema import EVENT_ID
from nearline.settings import settings
from nearline.windows import HOUR, Window, hour_floor

Status = Literal["accepted", "duplicate", "refused"]

T = TypeVar("T")

_SLICE, _PAUSE_S = 100, 1e-5
"""Rows of a large post that are taken at once, and how long others may run in between."""


@dataclass(frozen=True)
class Receipt:
    """What became of one row: `reason` when it was refused, `event` when it was accepted."""

    event_id: str | None
    status: Status
    reason: str | None = None
    event: Event | None = None


@dataclass(frozen=True)
class _Judged:
    """What becomes of a row: its `event` is let in, unless its id is there already.

    `line` is how its line begins; None for what is not kept.
    """

    event_id: str | None
    event: Event | None = None
    reason: str | None = None
    line: bytes | None = None

    def receipt(self, status: Status, received_ts: datetime) -> Receipt:
        """What the row is answered, which arrived then."""
        event = settled(self.event, received_ts) if self.event and status == "accepted" else None
        return Receipt(self.event_id, status, self.reason, event)


class Journal:
    """One process's door for events; any number of threads may append, of processes too.

    An event id that was accepted within the last `late_hours` is a duplicate. A journal knows the
    ids of others only from when it was opened: what two processes accept twice, Spark's clean step
    sorts out. (It could follow the others' journals, but their newest lines may yet be cut off by a
    disk that is full or fails: an event told a duplicate of one of those would be lost.)
    """

    def __init__(
        self,
        root: Path,
        domain: Domain,
        *,
        late_hours: int,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.root = root
        self._domain, self._late_hours, self._clock = domain, late_hours, clock
        self._seen = SeenIds(late_hours)
        self._forgotten = Forgotten(root / "forgotten")
        self._unsure: set[str] = set()
        self._writer = Writer(root, clock=clock, lost=self._forget_unsure)
        self._remember()

    @classmethod
    def open(cls) -> "Journal":
        """The journal that the settings name."""
        config = settings()
        return cls(config.intake, load_domain(config.domain), late_hours=config.late_hours)

    def append(self, rows: Sequence[Any], *, source: str = "api") -> list[Receipt]:
        """Take events in, as the API's JSON gave them; all are on disk when this returns.

        Gives one receipt for each row. A refused row is kept too, marked for quarantine; not so
        what a user did before being forgotten. Raises NotKept when the disk does not keep them:
        then none of these rows was confirmed.
        """
        if not rows:
            return []
        # Others wait while the writer has these rows: all that can be is done before and after.
        read = [(row, *read_event(row, self._domain)) for row in _in_slices(rows)]
        heard, at = self._forgotten.heard, self._clock()
        judged = [self._judge(*each, source, at) for each in _in_slices(read)]
        arrived: list[datetime] = []
        statuses: list[Status] = []
        new: set[str] = set()

        def lines(stamps: Sequence[datetime]) -> list[bytes]:
            nonlocal judged
            self._forgotten.follow()
            if self._forgotten.heard != heard or not _as_good(at, stamps[0]):
                judged = [self._judge(*each, source, stamps[0]) for each in read]
            arrived.extend(stamps)
            statuses.extend(self._statuses(judged, new, stamps[0]))
            told = zip(judged, statuses, stamps, strict=True)
            return [
                stamped(each.line, stamp)
                for each, status, stamp in told
                if each.line is not None and status != "duplicate"
            ]

        def wrote() -> None:
            self._unsure.update(new)
            self._seen.add(new, arrived[0])

        self._writer.append(len(rows), lines, wrote=wrote)
        self._unsure.difference_update(new)
        told = list(zip(judged, statuses, arrived, strict=True))
        return [each.receipt(status, stamp) for each, status, stamp in _in_slices(told)]

    def close(self) -> None:
        """Let go of the files; the journal takes no more events."""
        self._writer.close()

    def _judge(
        self, row: Any, event: Event | None, reason: str | None, source: str, at: datetime
    ) -> _Judged:
        """What becomes of a row that arrives at about that time."""
        user_id, happened = (event.user_id, event.event_ts) if event else user_and_time(row)
        happened = min(happened or at, at)
        if user_id is not None and self._forgotten.tells(user_id, happened):
            reason = f"user_id: this user was forgotten later than {happened.isoformat()}"
            return _Judged(id_in(row, EVENT_ID), reason=reason)
        if event is not None:
            reason = broken_time(event, at, self._late_hours)
            if reason is None:
                kept = event.raw(source=source, received_ts=at)
                return _Judged(event.event_id, event, line=unstamped(kept))
        event_id = event.event_id if event else id_in(row, EVENT_ID)
        kept = refused_row(row, source=source, received_ts=at)
        return _Judged(event_id, reason=reason, line=unstamped(kept))

    def _statuses(self, judged: Sequence[_Judged], new: set[str], at: datetime) -> Iterator[Status]:
        """What becomes of each row that arrives in the hour of that time; `new` gets the ids that
        are let in, each once."""
        known = self._seen.known([e.event.event_id for e in judged if e.event is not None], at)
        for each in judged:
            if each.event is None:
                yield "refused"
            elif each.event.event_id in known or each.event.event_id in new:
                yield "duplicate"
            else:
                new.add(each.event.event_id)
                yield "accepted"

    def _forget_unsure(self) -> None:
        """Nobody was answered for these ids: they may come again."""
        self._seen.forget(self._unsure)
        self._unsure.clear()

    def _remember(self) -> None:
        """Take up the ids that were accepted before."""
        since = self._clock() - self._late_hours * HOUR
        for hour in self._hours_since(since):
            sync_hour(self.root, hour)
            for event_ids in accepted_ids(self.root, hour):
                self._seen.add(event_ids, hour)

    def _hours_since(self, since: datetime) -> Iterator[datetime]:
        return Window(hour_floor(since), hour_floor(self._clock()) + 2 * HOUR).hours()


def _in_slices(rows: Sequence[T]) -> Iterator[T]:
    """The rows, with a pause after every _SLICE of them.

    Other threads wait for the interpreter's lock, which this one gives up of itself after 5 ms at
    the earliest: a single event would wait for it several times.
    """
    for start in range(0, len(rows), _SLICE):
        if start:
            time.sleep(_PAUSE_S)
        yield from rows[start : start + _SLICE]


def _as_good(at: datetime, received_ts: datetime) -> bool:
    """Whether what was judged at a time holds for what arrives then.

    An hour decides whether an event is too late. One that was too far ahead a moment ago may stay
    refused, but none may be let in by a clock that was put back since.
    """
    return at <= received_ts and hour_floor(at) == hour_floor(received_ts)
