"""The hours that are due beside those asked for: small gaps before them, stale hours after them."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from nearline.intake.impressions import IMPRESSIONS
from nearline.lake import EVENTS, RAW, Lake
from nearline.windows import HOUR, Window
from pipeline.due import due, later_hours_follow

T0 = datetime(2026, 5, 1, tzinfo=UTC)
ACTIVITY, PAIRS, NEIGHBOURS = (
    "features/user_activity",
    "partials/cooccurrence",
    "features/item_neighbours",
)


def hours(start: int, end: int) -> Window:
    return Window(T0 + start * HOUR, T0 + end * HOUR)


@pytest.fixture
def lake(home: Path) -> Iterator[Lake]:
    """All is done for 100 hours; then hours are missing, 10 of them everywhere; then again 10."""
    lake = Lake.open()
    lake.mark_complete(RAW, hours(0, 120), rows=9)
    for dataset in (EVENTS, ACTIVITY, PAIRS, NEIGHBOURS):
        lake.mark_complete(dataset, hours(0, 100), rows=9)
        lake.mark_complete(dataset, hours(110, 120), rows=9)
    return lake


def write(lake: Lake, hour: int, value: str) -> None:
    lake.write_hour(EVENTS, T0 + hour * HOUR, pa.table({"event_id": [value]}))


def test_a_small_gap_right_before_is_due(lake: Lake) -> None:
    assert due(lake, [EVENTS], hours(100, 101)) == hours(100, 101)
    assert due(lake, [EVENTS], hours(104, 105)) == hours(100, 105)
    assert due(lake, [EVENTS], hours(120, 121)) == hours(120, 121)
    assert due(lake, [EVENTS], hours(144, 145)) == hours(120, 145)
    assert due(lake, [EVENTS], hours(145, 146)) == hours(145, 146), "too large: for a backfill"
    assert due(lake, ["never"], hours(5, 6)) == hours(5, 6)


def test_the_oldest_gap_of_several_datasets_counts(lake: Lake) -> None:
    lake.mark_complete(ACTIVITY, hours(100, 103), rows=1)
    assert due(lake, [ACTIVITY, EVENTS], hours(104, 105)) == hours(100, 105)


def test_hours_done_again_are_never_swallowed(lake: Lake) -> None:
    assert due(lake, [EVENTS, ACTIVITY], hours(50, 51)) == hours(50, 51)


def test_filling_a_gap_makes_the_hours_after_it_stale(lake: Lake) -> None:
    with later_hours_follow(lake, hours(109, 110)):
        write(lake, 109, "new")
        lake.mark_complete(EVENTS, hours(109, 110), rows=1)
    assert due(lake, [EVENTS], hours(109, 110)) == hours(100, 120)
    assert due(lake, [ACTIVITY], hours(109, 110)) == hours(100, 120)
    assert lake.ledger(NEIGHBOURS).stale() == []
    assert lake.ledger(PAIRS).stale() == [hours(61, 110)]
    assert lake.watermark(EVENTS) == hours(0, 120).end
    lake.mark_complete(ACTIVITY, hours(109, 115), rows=1)
    assert lake.ledger(ACTIVITY).stale() == [hours(115, 120)]


def test_what_was_shown_follows_from_no_event(lake: Lake) -> None:
    lake.mark_complete(IMPRESSIONS, hours(0, 120), rows=9)
    with later_hours_follow(lake, hours(109, 110)):
        write(lake, 109, "filled")
    assert lake.ledger(IMPRESSIONS).outdated() == []
    assert lake.ledger(ACTIVITY).outdated() != []


def test_an_hour_that_is_still_followed_by_a_gap_makes_nothing_stale(lake: Lake) -> None:
    with later_hours_follow(lake, hours(100, 101)):
        write(lake, 100, "new")
    assert lake.ledger(EVENTS).stale() == []


def test_an_empty_hour_that_closes_a_gap_tells_of_those_filled_before_it(lake: Lake) -> None:
    for hour in range(100, 110):
        with later_hours_follow(lake, hours(hour, hour + 1)):
            if hour == 103:
                write(lake, hour, "new")
            lake.mark_complete(EVENTS, hours(hour, hour + 1), rows=1)
            lake.mark_complete(ACTIVITY, hours(hour, hour + 1), rows=1)
    for dataset in (EVENTS, ACTIVITY):
        assert due(lake, [dataset], hours(109, 110)) == hours(109, 120)


def test_a_gap_may_be_filled_in_any_order(lake: Lake) -> None:
    """Hours 101 and 103 hold events; whoever comes later must know of them in the end."""
    knows: dict[int, set[int]] = {}
    filled: set[int] = set()

    def compute(hour: int) -> None:
        if hour in (101, 103):
            write(lake, hour, "new")
        filled.add(hour)
        knows[hour] = {other for other in filled if other < hour}
        lake.mark_complete(EVENTS, hours(hour, hour + 1), rows=1)

    for hour in (106, 101, 104, 100, 109, 103, 107, 102, 108, 105):
        with later_hours_follow(lake, hours(hour, hour + 1)):
            compute(hour)
        end = due(lake, [EVENTS], hours(hour, hour + 1)).end
        for later in range(hour + 1, round((end - T0) / HOUR)):
            compute(later)
    assert lake.ledger(EVENTS).stale() == []
    assert all({101, 103} - set(range(hour, 120)) <= known for hour, known in knows.items())
    assert set(range(110, 120)) <= set(knows)


def test_an_hour_that_stays_as_it_was_makes_nothing_stale(lake: Lake) -> None:
    write(lake, 50, "same")
    with later_hours_follow(lake, hours(50, 51)):
        assert due(lake, [EVENTS], hours(50, 51)) == hours(50, 100)
        write(lake, 50, "same")
    assert due(lake, [EVENTS], hours(50, 51)) == hours(50, 51)
    assert lake.ledger(PAIRS).stale() == []


def test_an_event_that_comes_late_to_an_old_hour_counts(lake: Lake) -> None:
    with later_hours_follow(lake, hours(50, 51)):
        write(lake, 10, "late")
    assert due(lake, [ACTIVITY], hours(50, 51)) == hours(50, 100)


def test_a_kill_leaves_later_hours_stale_and_a_retry_does_not_clear_them(lake: Lake) -> None:
    with suppress(KeyboardInterrupt), later_hours_follow(lake, hours(50, 51)):
        write(lake, 50, "new")
        raise KeyboardInterrupt
    with later_hours_follow(lake, hours(50, 51)):
        write(lake, 50, "new")
    assert due(lake, [EVENTS, ACTIVITY], hours(50, 51)) == hours(50, 100)


def test_hours_beyond_every_window_do_not_follow(lake: Lake) -> None:
    lake.mark_complete(RAW, hours(0, 2000), rows=1)
    lake.mark_complete(EVENTS, hours(0, 2000), rows=1)
    with later_hours_follow(lake, hours(50, 51)):
        write(lake, 50, "new")
    assert lake.ledger(EVENTS).stale() == [hours(51, 51 + 30 * 24 + 1)]
