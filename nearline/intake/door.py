"""Who is let in: an event that its model or the domain file refuses is kept all the same, as text.

Spark's clean step holds the same rules, and some that need more than one event (unknown items,
bots). What is refused here carries a marked source, which that step refuses whatever else it finds.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from nearline.domains import Domain, EventType
from nearline.errors import BadInput
from nearline.faults import one_line
from nearline.identity import stored_id
from nearline.records import Event
from nearline.schema import CLOCK_SKEW, EVENT_TS, LARGEST_VALUE, RECEIVED_TS, REFUSED, USER_ID
from nearline.settings import settings
from nearline.windows import HOUR, hour_floor, parse_time

_COLUMNS = frozenset(Event.model_fields) - {"attributes"}


def read_event(row: Any, domain: Domain) -> tuple[Event | None, str | None]:
    """The event that `row` (JSON as Python values) is, or None and the reason why it is none."""
    try:
        event = Event.model_validate(row)
    except ValidationError as error:
        return None, one_line(error, whole="event")
    reason = broken_rule(event, domain)
    if reason:
        return None, reason
    user_id = stored_id(event.user_id)
    if user_id != event.user_id:
        event = event.model_copy(update={USER_ID: user_id})
    return event, None


def broken_rule(event: Event, domain: Domain) -> str | None:
    """The rule of the domain file that an event breaks, if any."""
    kind = domain.event_types.get(event.event_type)
    if kind is None:
        known = ", ".join(domain.event_types)
        return f"event_type: {event.event_type!r} is unknown to this site, which has {known}"
    if kind.requires_item and event.item_id is None:
        return f"item_id: {event.event_type} needs one"
    return _broken_value(event, kind)


def _broken_value(event: Event, kind: EventType) -> str | None:
    allowed = kind.value
    if event.value is None:
        needed = allowed is not None and allowed.required
        return f"value: {event.event_type} needs one" if needed else None
    low, high = (allowed.min, allowed.max) if allowed else (-LARGEST_VALUE, LARGEST_VALUE)
    if low <= event.value <= high:
        return None
    unit = f" ({allowed.unit})" if allowed else ""
    return f"value: {event.value} is not from {low:g} to {high:g}{unit}"


def broken_time(event: Event, received_ts: datetime, late_hours: int) -> str | None:
    """Why an event cannot have happened when it says, if so."""
    if event.event_ts > received_ts + CLOCK_SKEW:
        return f"event_ts: {event.event_ts.isoformat()} is in the future"
    if event.event_ts < hour_floor(received_ts) - late_hours * HOUR:
        return f"event_ts: {event.event_ts.isoformat()} is more than {late_hours} hours ago"
    return None


def settled(event: Event, received_ts: datetime) -> Event:
    """The event as the lake will have it: a clock that runs ahead a little is put right."""
    if event.event_ts <= received_ts:
        return event
    return event.model_copy(update={"event_ts": received_ts})


def refused_row(row: Any, *, source: str, received_ts: datetime) -> dict[str, Any]:
    """What came in as a row of RAW_SCHEMA, marked as refused, with nothing lost.

    Plain values go to their columns as text; the rest goes to `attributes` as JSON, and so does,
    whole, what is no object. With pseudonyms the rest is not kept: it may name users anywhere.
    """
    plain, attributes = _split(row) if isinstance(row, Mapping) else ({}, row)
    kept = attributes != {} and not settings().pseudonymise
    return {
        **dict.fromkeys(_COLUMNS),
        **plain,
        "attributes": _json(attributes) if kept else None,
        "source": source + REFUSED,
        RECEIVED_TS: received_ts,
    }


def _split(row: Mapping[str, Any]) -> tuple[dict[str, str | None], Any]:
    """The columns that a row fills, and what is left for the attributes."""
    plain = {
        name: _text(value)
        for name, value in row.items()
        if name in _COLUMNS and not isinstance(value, Mapping | list)
    }
    rest = {name: value for name, value in row.items() if name not in plain}
    user_id = plain.get(USER_ID)
    if user_id is not None:
        plain[USER_ID] = stored_id(user_id)
    given = rest.get("attributes")
    return plain, given if len(rest) == 1 and isinstance(given, Mapping) else rest


def id_in(row: Any, name: str) -> str | None:
    """The id under which a refused row is answered, where it has a readable one."""
    found = row.get(name) if isinstance(row, Mapping) else None
    return _text(found) if isinstance(found, str) else None


def user_and_time(row: Any) -> tuple[str | None, datetime | None]:
    """Whose a refused event is and when it happened, as far as that can be read."""
    plain, _ = _split(row) if isinstance(row, Mapping) else ({}, None)
    try:
        happened = parse_time(plain.get(EVENT_TS) or "")
    except (BadInput, OverflowError):
        happened = None
    return plain.get(USER_ID), happened


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else _json(value)
    # Half of a surrogate pair is legal in JSON, but not in UTF-8.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _json(value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, default=str)
    except RecursionError:
        return json.dumps("nested too deeply to be kept")
