"""Which window a run is about: the one place that reads it from what the scheduler gives."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from nearline.errors import BadInput
from nearline.windows import Window, hour_floor, parse_time


def run_window(context: Mapping[str, Any]) -> Window:
    """The window of a scheduled, backfilled or manual run.

    `start` and `end` among the run's parameters win; else it is the data interval, down to whole
    hours: a run may begin some minutes after the hour that it needs.
    Raises BadInput when a run has neither.
    """
    params = context.get("params") or {}
    start, end = params.get("start"), params.get("end")
    if start and end:
        return Window.parse(start, end)
    if start or end:
        raise BadInput(f"give both start and end, or neither: got start={start!r}, end={end!r}")
    first, last = context.get("data_interval_start"), context.get("data_interval_end")
    if first is None or last is None or first == last:
        raise BadInput("this run has no data interval: trigger it with start and end")
    return Window(hour_floor(_utc(first)), hour_floor(_utc(last)))


def triggering_window(context: Mapping[str, Any]) -> Window:
    """The window of a run that assets triggered: from the first to the last hour they tell of.

    Events coalesce: several hours that were finished before the run began are one window.
    Raises BadInput when no event carries a window and no parameters are given.
    """
    events = [
        event
        for found in (context.get("triggering_asset_events") or {}).values()
        for event in found
    ]
    windows = list(_windows(event.extra or {} for event in events))
    if not windows:
        return run_window(context)
    return Window(min(w.start for w in windows), max(w.end for w in windows))


def _windows(extras: Iterable[Mapping[str, str]]) -> Iterable[Window]:
    for extra in extras:
        if "start" in extra and "end" in extra:
            yield Window.parse(extra["start"], extra["end"])


def _utc(ts: datetime) -> datetime:
    """A plain datetime, whatever class the scheduler hands over."""
    return parse_time(ts.isoformat())
