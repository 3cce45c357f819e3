"""Time windows: UTC, whole hours, closed at the start and open at the end."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from nearline.errors import BadInput

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def midnight(day: date) -> datetime:
    """The time at which a UTC day begins."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def hour_floor(ts: datetime) -> datetime:
    """The start of the hour that `ts` (timezone-aware) falls in, in UTC."""
    if ts.tzinfo is None:
        raise BadInput(f"time {ts.isoformat()} has no time zone: give UTC, as in {ts.isoformat()}Z")
    return ts.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def hour_number(ts: datetime) -> int:
    """The number of the hour that a time falls in, counted from 1970."""
    return int(ts.timestamp() // HOUR.total_seconds())


def parse_time(text: str) -> datetime:
    """An ISO 8601 time as UTC; a time without a zone is taken as UTC.

    Raises BadInput when the text is no time.
    """
    try:
        ts = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"{text!r} is not a time: write it as 2026-01-31T13:00:00Z") from error
    return ts.replace(tzinfo=UTC) if ts.tzinfo is None else ts.astimezone(UTC)


@dataclass(frozen=True, order=True)
class Window:
    """The hours `[start, end)`. Raises BadInput unless both are whole UTC hours and start < end."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for name, ts in (("start", self.start), ("end", self.end)):
            if ts.tzinfo is None or hour_floor(ts) != ts:
                raise BadInput(f"window {name} {ts.isoformat()} must be a whole hour in UTC")
        if self.start >= self.end:
            raise BadInput(f"window is empty: start {self.start} is not before end {self.end}")

    @classmethod
    def parse(cls, start: str, end: str) -> "Window":
        """A window from two ISO 8601 texts."""
        return cls(parse_time(start), parse_time(end))

    @classmethod
    def of_hour(cls, ts: datetime) -> "Window":
        """The hour that `ts` falls in."""
        start = hour_floor(ts)
        return cls(start, start + HOUR)

    @classmethod
    def of_days(cls, first: date, last: date) -> "Window":
        """Whole UTC days, from the first to the last."""
        return cls(midnight(first), midnight(last) + DAY)

    @classmethod
    def trailing(cls, end: datetime, *, hours: int) -> "Window":
        """The `hours` hours that end at `end`."""
        return cls(end - hours * HOUR, end)

    def hours(self) -> Iterator[datetime]:
        """The start of each hour, oldest first."""
        hour = self.start
        while hour < self.end:
            yield hour
            hour += HOUR

    def days(self) -> Iterator[date]:
        """Each UTC day that the window touches, oldest first."""
        day = self.start.date()
        while midnight(day) < self.end:
            yield day
            day += DAY

    def by_day(self) -> Iterator["Window"]:
        """The window's part of each UTC day, oldest first."""
        for day in self.days():
            start = midnight(day)
            yield Window(max(start, self.start), min(start + DAY, self.end))

    def contains(self, ts: datetime) -> bool:
        """Whether `ts` lies in `[start, end)`."""
        return self.start <= ts < self.end

    def covers(self, other: "Window") -> bool:
        """Whether every hour of `other` is in this window."""
        return self.start <= other.start and other.end <= self.end

    def __str__(self) -> str:
        return f"[{self.start:%Y-%m-%dT%H:%M}Z, {self.end:%Y-%m-%dT%H:%M}Z)"


def merge(windows: Iterable[Window]) -> list[Window]:
    """The same hours as `windows`, as few windows as possible, oldest first."""
    merged: list[Window] = []
    for window in sorted(windows):
        if merged and window.start <= merged[-1].end:
            merged[-1] = Window(merged[-1].start, max(merged[-1].end, window.end))
        else:
            merged.append(window)
    return merged


def without(windows: Iterable[Window], others: Iterable[Window]) -> list[Window]:
    """The hours of `windows` that are in none of `others`, as few windows as possible."""
    left = merge(windows)
    for other in others:
        left = [part for window in left for part in _outside(window, other)]
    return left


def _outside(window: Window, other: Window) -> Iterator[Window]:
    for start, end in (
        (window.start, min(window.end, other.start)),
        (max(window.start, other.end), window.end),
    ):
        if start < end:
            yield Window(start, end)


def spans(hours: Iterable[datetime]) -> list[Window]:
    """Single hours as the fewest windows that hold exactly them."""
    return merge(Window.of_hour(hour) for hour in hours)
