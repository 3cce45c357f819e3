"""A long window in chunks: bounded by raw rows, shown by a bar, resumed where a kill left it.

What is done of a window is kept in `_progress/<start>_<end>/<step>.json` of the lake until all its
steps have finished. A window of one chunk leaves nothing.
"""

from collections.abc import Callable, Iterator
from datetime import date, datetime

from tqdm import tqdm

from nearline.lake import RAW, Lake
from nearline.settings import settings
from nearline.windows import Window

_PROGRESS = "_progress"


def plan(lake: Lake, window: Window) -> list[Window]:
    """The window in parts of whole UTC days, with no more than `backfill_rows` raw rows in each.

    A day with more rows is a part of its own.
    """
    days = list(window.days())
    if len(days) == 1:
        return [window]
    counts = dict.fromkeys(days, 0)
    for hour, manifest in lake.manifests(RAW, window).items():
        counts[hour.date()] += manifest.rows
    return [_within(window, first, last) for first, last in _packed(counts)]


def _packed(counts: dict[date, int]) -> Iterator[tuple[date, date]]:
    """First and last day of each chunk."""
    held: list[date] = []
    rows = 0
    for day, more in counts.items():
        if held and rows + more > settings().backfill_rows:
            yield held[0], held[-1]
            held, rows = [], 0
        held.append(day)
        rows += more
    yield held[0], held[-1]


def _within(window: Window, first: date, last: date) -> Window:
    days = Window.of_days(first, last)
    return Window(max(days.start, window.start), min(days.end, window.end))


def forget_all(lake: Lake) -> None:
    """Forget how far any window is: all of them begin anew."""
    lake.remove_notes(_PROGRESS)


class Progress:
    """How far the steps of one window are."""

    def __init__(self, lake: Lake, window: Window) -> None:
        self._lake = lake
        self._folder = f"{_PROGRESS}/{window.start:%Y%m%dT%H}_{window.end:%Y%m%dT%H}"

    def run(self, step: str, window: Window, work: Callable[[Window], int]) -> int:
        """Do `work` on each chunk of `window`, oldest first; returns what it counts, added up.

        Chunks that an earlier run of the step finished are not done again, but counted.
        """
        until, counted = self._read(step)
        if until is not None and until >= window.end:
            return counted
        left = Window(max(window.start, until or window.start), window.end)
        chunks = plan(self._lake, left)
        for chunk in tqdm(chunks, desc=step, unit="chunk", disable=len(chunks) == 1 or None):
            counted += work(chunk)
            if len(chunks) > 1 or until is not None:
                self._write(step, chunk.end, counted)
        return counted

    def finish(self) -> None:
        """Forget how far the steps are: all of them are done."""
        self._lake.remove_notes(self._folder)

    def _read(self, step: str) -> tuple[datetime | None, int]:
        body = self._lake.read_note(self._name(step))
        return (datetime.fromisoformat(body["until"]), body["counted"]) if body else (None, 0)

    def _write(self, step: str, until: datetime, counted: int) -> None:
        body = {"until": until.isoformat(), "counted": counted}
        self._lake.write_note(self._name(step), body)

    def _name(self, step: str) -> str:
        return f"{self._folder}/{step}.json"
