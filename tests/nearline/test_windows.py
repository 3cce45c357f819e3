from datetime import UTC, date, datetime, timedelta

import pytest

from nearline.errors import BadInput
from nearline.windows import Window, hour_floor, merge, parse_time, spans, without

T0 = datetime(2026, 3, 29, 22, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_hours_and_days_cross_midnight() -> None:
    window = Window(T0, T0 + 4 * HOUR)
    assert [h.hour for h in window.hours()] == [22, 23, 0, 1]
    assert [d.day for d in window.days()] == [29, 30]


def test_whole_days_go_from_the_first_to_the_last() -> None:
    days = [date(2026, 2, 28), date(2026, 3, 1)]
    assert Window.of_days(*days) == Window.parse("2026-02-28T00:00Z", "2026-03-02T00:00Z")
    assert list(Window.of_days(*days).days()) == days


def test_a_window_that_ends_at_midnight_does_not_touch_the_next_day() -> None:
    assert [d.day for d in Window(T0, T0 + 2 * HOUR).days()] == [29]


def test_the_end_is_open() -> None:
    window = Window.of_hour(T0 + timedelta(minutes=59))
    assert window.contains(T0)
    assert not window.contains(T0 + HOUR)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2026-01-01T00:30", "2026-01-01T02:00"),
        ("2026-01-01T02:00", "2026-01-01T02:00"),
        ("yesterday", "2026-01-01T02:00"),
    ],
)
def test_a_wrong_window_is_refused(start: str, end: str) -> None:
    with pytest.raises(BadInput):
        Window.parse(start, end)


def test_times_without_a_zone_are_refused_where_they_would_be_guessed() -> None:
    with pytest.raises(BadInput, match="time zone"):
        hour_floor(datetime(2026, 1, 1))


def test_parse_time_converts_to_utc() -> None:
    assert parse_time("2026-01-01T02:00:00+02:00") == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_window_by_day() -> None:
    day = Window.of_days(T0.date(), T0.date())
    early, late = day.start - HOUR, day.end + 2 * HOUR
    assert list(day.by_day()) == [day]
    assert list(Window(early, late).by_day()) == [
        Window(early, day.start),
        day,
        Window(day.end, late),
    ]


def test_merge_joins_what_touches_and_keeps_gaps() -> None:
    a, b, c = (Window(T0 + i * HOUR, T0 + j * HOUR) for i, j in [(0, 2), (2, 3), (5, 6)])
    assert merge([c, b, a]) == [Window(T0, T0 + 3 * HOUR), c]
    assert spans([T0 + HOUR, T0]) == [Window(T0, T0 + 2 * HOUR)]


def test_hours_without_others() -> None:
    def hours(start: int, end: int) -> Window:
        return Window(T0 + start * HOUR, T0 + end * HOUR)

    assert without([hours(0, 10)], [hours(2, 3), hours(5, 7)]) == [
        hours(0, 2),
        hours(3, 5),
        hours(7, 10),
    ]
    assert without([hours(0, 4)], [hours(-1, 1), hours(3, 9), hours(20, 21)]) == [hours(1, 3)]
    assert without([hours(0, 4)], [hours(0, 4)]) == []
