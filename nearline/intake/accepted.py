"""Accepted events as live state reads them from journals: a few fields, decoded fast.

They were judged at the door, so that nothing is judged again here. Refused rows, of which any field
may be anything, are left out.
"""

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from nearline.intake.files import hour_folder, whole_lines
from nearline.schema import EVENT_TS, REFUSED

log = logging.getLogger(__name__)


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """An accepted event; `told_ts` is when its sender says that it happened."""

    event_id: str
    user_id: str
    event_type: str
    told_ts: datetime = msgspec.field(name=EVENT_TS)
    received_ts: datetime
    source: str
    item_id: str | None = None
    value: float | None = None

    @property
    def event_ts(self) -> datetime:
        """When it happened, as the lake will have it: a clock that runs ahead is put right."""
        return min(self.told_ts, self.received_ts)


class _Named(msgspec.Struct, gc=False):
    """What of a row the search for duplicates reads."""

    source: str
    event_id: str | None = None


# Not strict: a value is kept as text.
_EVENT = msgspec.json.Decoder(Accepted, strict=False)
_NAMED = msgspec.json.Decoder(_Named)
_REFUSED = f'{REFUSED}"'.encode()


def accepted_events(lines: Sequence[bytes], path: str) -> Iterator[tuple[datetime, Accepted]]:
    """The events of ended lines, with their stamps; a damaged line is told and left out."""
    for number, line in enumerate(lines, start=1):
        try:
            event = _EVENT.decode(line)
        except msgspec.DecodeError:
            if not (line.isspace() or _REFUSED in line):  # blanked, or refused
                log.warning(
                    "%s: a line (%d of %d) is damaged and left out", path, number, len(lines)
                )
            continue
        if not event.source.endswith(REFUSED):
            yield event.received_ts, event


def accepted_ids(root: Path, hour: datetime) -> Iterator[list[str]]:
    """The ids of the events that were accepted in an hour, one journal after the other."""
    for path in sorted(hour_folder(root, hour).glob("*.jsonl")):
        lines, _ = whole_lines(str(path), 0)
        rows = _named(lines)
        yield [
            row.event_id
            for row in rows
            if row.event_id is not None and not row.source.endswith(REFUSED)
        ]


def _named(lines: Sequence[bytes]) -> Iterator[_Named]:
    """Lines as rows; one that is damaged costs no other."""
    for line in lines:
        try:
            yield _NAMED.decode(line)
        except msgspec.DecodeError:
            continue
