"""Which hours a step has to do beside those that it is asked for: gaps, and what became stale.

Every step looks back, so that hours are wrong once an older hour is filled or changed. Whoever does
so makes the hours after it stale, and a step does stale hours right after its window again. A gap
right before the window is filled where it is small; a larger one waits for a backfill.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime

from nearline.intake.impressions import IMPRESSIONS
from nearline.lake import EVENTS, RAW, Lake
from nearline.ledger import Ledger
from nearline.reach import WINDOW_DAYS
from nearline.settings import settings
from nearline.windows import HOUR, Window, without
from pipeline.status import NIGHTLY, PAIRS


def due(lake: Lake, datasets: Iterable[str], window: Window) -> Window:
    """`window`, the gap right before it, and the stale hours right after it.

    As far as any of `datasets` has them; a gap of more than `catchup_hours` is left alone.
    """
    names = list(datasets)
    return Window(
        min(_gap_start(lake, name, window) for name in names),
        max(_stale_end(lake, name, window) for name in names),
    )


def _gap_start(lake: Lake, dataset: str, window: Window) -> datetime:
    before = [done for done in lake.covered(dataset) if done.start < window.start]
    last = max((min(done.end, window.start) for done in before), default=window.start)
    small = window.start - last <= settings().catchup_hours * HOUR
    return last if small else window.start


def _stale_end(lake: Lake, dataset: str, window: Window) -> datetime:
    for stale in lake.ledger(dataset).stale():
        if stale.start <= window.end < stale.end:
            return stale.end
    return window.end


@contextmanager
def later_hours_follow(lake: Lake, window: Window) -> Iterator[None]:
    """Around what writes the events of `window`: later hours are stale unless nothing changed.

    They are made stale beforehand, in every dataset that has them: a kill leaves them so. Of what
    is made of whole days, the days of the window are. Where the window fills a gap they stay stale
    whatever it holds: while the gap was open, hours before it may have changed without telling.
    """
    later = _later(lake, window)
    if later is None:
        yield
        return
    late = settings().late_hours * HOUR
    reach = Window(window.start - late, window.end + late)
    marked = [
        (ledger, part)
        for ledger, hours in following(lake, later, Window(reach.start, window.end))
        for part in without([hours], ledger.outdated())
    ]
    again = any(done.covers(window) for done in lake.ledger(EVENTS).computed())
    before = _checksums(lake, reach)
    for ledger, part in marked:
        ledger.make_stale(part)
    yield
    if again and _checksums(lake, reach) == before:
        for ledger, part in marked:
            ledger.refresh(part)


def following(lake: Lake, later: Window, written: Window) -> Iterator[tuple[Ledger, Window]]:
    """What is outdated of each dataset once `written` changes, and `later` looks back to it.

    Nothing of what arrived, which is made of no events.
    """
    for name in lake.datasets():
        if name.endswith(PAIRS):
            yield lake.ledger(name), written
        elif name not in (RAW, IMPRESSIONS) and not name.endswith(NIGHTLY):
            yield lake.ledger(name), later


def make_stale(lake: Lake, hours: Window) -> None:
    """Record that these hours are to be closed again, and all that was made of them made again."""
    lake.ledger(RAW).make_stale(hours)
    for ledger, outdated in following(lake, hours, hours):
        ledger.make_stale(outdated)


def _later(lake: Lake, window: Window) -> Window | None:
    """The hours right after `window` that look back to it, were done, and can be done again."""
    longest = Window(window.end, window.end + (24 * WINDOW_DAYS + 1) * HOUR)
    ends = []
    for done in (lake.ledger(EVENTS).computed(), lake.covered(RAW)):
        ends.append(max((w.end for w in done if w.start <= window.end < w.end), default=window.end))
    end = min(*ends, longest.end)
    return Window(window.end, end) if end > window.end else None


def _checksums(lake: Lake, window: Window) -> dict[object, str]:
    return {hour: manifest.sha256 for hour, manifest in lake.manifests(EVENTS, window).items()}
