"""The journal of accepted events: what it has answered for is on disk."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

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
from nearline.intake.files import sync_hour, to_line
from nearline.intake.forgotten import Forgotten
from nearline.intake.seen import SeenIds
from nearline.intake.writer import Writer, utc_now
from nearline.records import Event
from nearline.schema import EVENT_ID
from nearline.settings import settings
from nearline.windows import HOUR, Window, hour_floor


@dataclass(frozen=True)
class Receipt:
    """What became of one row: `reason` when it was refused, `event` when it was accepted."""

    event_id: str | None
    status: Literal["accepted", "duplicate", "refused"]
    reason: str | None = None
    event: Event | None = None


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
        judged = [(row, *read_event(row, self._domain)) for row in rows]
        receipts: list[Receipt] = []
        new: set[str] = set()
        arrived: list[datetime] = []

        def lines(stamps: Sequence[datetime]) -> list[bytes]:
            self._forgotten.follow()
            arrived.extend(stamps)
            written = []
            for each, stamp in zip(judged, stamps, strict=True):
                receipt, line = self._told(*each, source, stamp)
                if receipt.status == "accepted":
                    event_id = str(receipt.event_id)
                    if event_id in new:
                        receipt, line = Receipt(event_id, "duplicate"), None
                    new.add(event_id)
                receipts.append(receipt)
                written += [line] if line else []
            return written

        def wrote() -> None:
            self._unsure.update(new)
            self._seen.add(new, arrived[0])

        self._writer.append(len(judged), lines, wrote=wrote)
        self._unsure.difference_update(new)
        return receipts

    def close(self) -> None:
        """Let go of the files; the journal takes no more events."""
        self._writer.close()

    def _told(
        self, row: Any, event: Event | None, reason: str | None, source: str, received_ts: datetime
    ) -> tuple[Receipt, bytes | None]:
        """What becomes of a row, and the line that keeps it, if anything is kept."""
        user_id, happened = (event.user_id, event.event_ts) if event else user_and_time(row)
        happened = min(happened or received_ts, received_ts)
        if user_id is not None and self._forgotten.tells(user_id, happened):
            reason = f"user_id: this user was forgotten later than {happened.isoformat()}"
            return Receipt(id_in(row, EVENT_ID), "refused", reason), None
        receipt = self._judge(row, event, reason, received_ts)
        if receipt.status == "refused":
            return receipt, to_line(refused_row(row, source=source, received_ts=received_ts))
        if receipt.status == "accepted" and event is not None:
            return receipt, to_line(event.raw(source=source, received_ts=received_ts))
        return receipt, None

    def _judge(
        self, row: Any, event: Event | None, reason: str | None, received_ts: datetime
    ) -> Receipt:
        if event is None:
            return Receipt(id_in(row, EVENT_ID), "refused", reason)
        reason = broken_time(event, received_ts, self._late_hours)
        if reason:
            return Receipt(event.event_id, "refused", reason)
        if self._seen.knows(event.event_id, received_ts):
            return Receipt(event.event_id, "duplicate")
        return Receipt(event.event_id, "accepted", event=settled(event, received_ts))

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
