"""Which hours a step is about."""

from datetime import UTC, datetime

import pytest

from nearline.domains import load_domain
from nearline.intake import Journal
from nearline.lake import EVENTS, RAW, Lake
from nearline.schema import RAW_SCHEMA
from nearline.settings import settings
from nearline.windows import HOUR, Window
from pipeline import steps

T0 = datetime(2026, 5, 1, tzinfo=UTC)
NIGHT = Window(T0 - 24 * HOUR, T0)


def hours(start: int, end: int) -> Window:
    return Window(T0 + start * HOUR, T0 + end * HOUR)


@pytest.mark.parametrize(
    ("learned", "arrived", "expected"),
    [
        (hours(-24, 0), hours(0, 1), hours(0, 1)),
        (hours(-24, 0), hours(2, 3), hours(0, 3)),
        (hours(-1, 1), hours(0, 1), hours(0, 1)),
        (hours(-1, 0), hours(-9, -8), None),
        (hours(-1, 0), hours(-900, 1), hours(-1, 1)),
    ],
    ids=["next hour", "hours missed", "hour again", "older hour again", "all hours again"],
)
def test_a_fine_tune_takes_what_its_parent_has_not_learned(
    learned: Window, arrived: Window, expected: Window | None
) -> None:
    assert steps.since(learned, arrived) == expected


@pytest.mark.usefixtures("home")
def test_housekeeping_leaves_what_late_events_may_need() -> None:
    noon = datetime(2026, 5, 9, 12, tzinfo=UTC)
    clock = [noon - 60 * HOUR]
    journal = Journal(
        settings().intake, load_domain("entertainment"), late_hours=48, clock=lambda: clock[0]
    )
    for event_id in ("old", "new"):
        event = {"event_id": event_id, "user_id": "u", "item_id": "i", "event_type": "comment"}
        journal.append([event | {"event_ts": clock[0].isoformat()}])
        clock[0] = noon - 2 * HOUR
    journal.close()
    found = steps.housekeeping(Window.trailing(noon, hours=24))
    assert found == {"releases": 0, "journals": 1}
    raw = Lake.open().read(RAW, schema=RAW_SCHEMA)
    assert raw["event_id"].to_pylist() == ["old"], "in the lake before its journal goes"


@pytest.mark.usefixtures("home")
def test_a_night_makes_up_for_what_is_missing() -> None:
    lake = Lake.open()
    assert steps.unfinished("pairs", NIGHT) == NIGHT, "an empty lake"
    lake.mark_complete(EVENTS, hours(-240, 0), rows=9)
    assert steps.unfinished("pairs", NIGHT) == hours(-240, 0), "never done"
    lake.mark_complete("pairs", hours(-240, -48), rows=9)
    assert steps.unfinished("pairs", NIGHT) == hours(-48, 0), "one night failed"
    lake.mark_complete("pairs", hours(-48, 0), rows=9)
    assert steps.unfinished("pairs", NIGHT) == NIGHT, "the same night again"
