"""Which hours a step is about."""

import logging
import subprocess
import sys
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from nearline.errors import MissingPartition, StepFailed
from nearline.intake import close_hours
from nearline.lake import EVENTS, RAW, Lake
from nearline.pushed import tell_pushed
from nearline.releases import ReleaseManifest, ReleaseStore
from nearline.settings import settings
from nearline.windows import HOUR, Window
from pipeline import steps
from pipeline.marts import FEATURES

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


@pytest.mark.parametrize(
    ("learned", "arrived", "expected"),
    [
        ("as it is", hours(0, 1), None),
        ("as it is", hours(0, 2), hours(1, 2)),
        ("otherwise", hours(0, 1), hours(0, 1)),
        ("otherwise", hours(0, 2), hours(0, 2)),
        (None, hours(0, 1), hours(0, 1)),
    ],
)
@pytest.mark.usefixtures("home")
def test_the_last_hour_is_learned_again_where_it_changed(
    learned: str | None, arrived: Window, expected: Window | None
) -> None:
    lake = Lake.open()
    lake.write_hour(EVENTS, T0, pa.table({"event_id": ["a"]}))
    if learned == "as it is":
        learned = lake.checksum(EVENTS, T0)
    parent = release(hours(-1, 1), last_hour=learned)
    assert steps.unlearned(lake, parent, arrived) == expected
    assert lake.checksum(EVENTS, T0 + HOUR) == "", "an hour without events"


def release(window: Window, last_hour: str | None) -> ReleaseManifest:
    return ReleaseManifest(
        kind="hourly",
        parent="p",
        base="b",
        window_start=window.start,
        window_end=window.end,
        last_hour=last_hour,
        promoted=True,
        reasons=[],
        metrics={},
    )


QUIET_HOUR = """
import sys
from nearline.windows import Window
from pipeline import steps

print(steps.finetune(Window.parse(*sys.argv[1:])), steps.push_active())
print({"torch", "feast"} & set(sys.modules))
"""


def test_an_hour_without_events_is_cheap_and_says_so(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lake, store = Lake.open(), ReleaseStore.open()
    night = release(hours(-1, 0), last_hour=None).model_copy(update={"kind": "nightly"})
    with store.stage() as folder:
        (folder / "weights").write_text("w")
        parent = store.publish(folder, night)
    store.promote(parent)
    tell_pushed(parent)
    lake.mark_complete(EVENTS, hours(-9, 0), rows=9)
    with pytest.raises(MissingPartition, match="events is not complete"):
        steps.finetune(hours(0, 1))
    lake.mark_complete(EVENTS, hours(0, 1), rows=0)
    times = [T0.isoformat(), (T0 + HOUR).isoformat()]
    done = subprocess.run(
        [sys.executable, "-c", QUIET_HOUR, *times], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["None 0", "set()"]
    with caplog.at_level(logging.INFO, logger="nearline.steps"):
        assert steps.finetune(hours(0, 1)) is None
        assert steps.finetune(hours(-9, -8)) is None
    assert [record.message for record in caplog.records] == [
        f"fine-tune: nothing to learn in {hours(0, 1)}, {parent} stays",
        f"fine-tune: {parent} has learned {hours(-9, -8)} already",
    ]


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
    lake.ledger("pairs").make_stale(hours(-100, -76))
    assert steps.unfinished("pairs", NIGHT) == hours(-100, 0), "a day was changed"


class Rooms:
    """Stands for Spark, dbt and Feast: keeps the ledger as they do, and notes what was asked."""

    def __init__(self, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lake = lake
        self.asked: list[tuple[str, Window]] = []
        self.fails: str | None = None
        self.events: dict[datetime, str] = {}
        monkeypatch.setattr("spark_jobs.jobs.run_features", self.spark)
        monkeypatch.setattr("spark_jobs.session.spark_session", lambda _: nullcontext())
        monkeypatch.setattr("pipeline.marts.build_marts", self.dbt)
        monkeypatch.setattr("pipeline.online.materialize", self.feast)
        monkeypatch.setattr("pipeline.online.hourly_views", lambda: ["user_activity"])

    def spark(self, window: Window) -> SimpleNamespace:
        self._ask("spark", window)
        self.lake.require_complete(RAW, window)
        for hour, value in self.events.items():
            if window.contains(hour):
                self.lake.write_hour(EVENTS, hour, pa.table({"event_id": [value]}))
        self._done(EVENTS, window)
        return SimpleNamespace(accepted=1)

    def dbt(self, window: Window) -> SimpleNamespace:
        self._ask("dbt", window)
        self.lake.require_complete(EVENTS, window)
        for dataset in FEATURES.values():
            self._done(dataset, window)
        return SimpleNamespace(rows={"features/user_activity": 1})

    def feast(self, window: Window) -> SimpleNamespace:
        self._ask("feast", window)
        self.lake.require_complete("features/user_activity", window)
        self._done("online/user_activity", window)
        return SimpleNamespace(rows={"user_activity": 1})

    def _ask(self, room: str, window: Window) -> None:
        self.asked.append((room, window))
        if room == self.fails:
            raise StepFailed(room)

    def _done(self, dataset: str, window: Window) -> None:
        self.lake.mark_complete(dataset, window, rows=1)


@pytest.fixture
def rooms(home: Path, monkeypatch: pytest.MonkeyPatch) -> Rooms:
    return Rooms(Lake.open(), monkeypatch)


def run(window: Window) -> Window:
    """A run of the hour's steps; returns the hours that came online."""
    steps.close_hours(window)
    steps.spark_features(window)
    steps.dbt_marts(window)
    return steps.materialize(window).window


def test_a_step_that_failed_is_made_up_for_by_the_next_hour(rooms: Rooms) -> None:
    run(hours(0, 1))
    rooms.fails = "dbt"
    with pytest.raises(StepFailed):
        run(hours(1, 2))
    rooms.fails, rooms.asked = None, []
    assert run(hours(2, 3)) == hours(1, 3)
    assert rooms.asked == [("spark", hours(2, 3)), ("dbt", hours(1, 3)), ("feast", hours(1, 3))]


@pytest.mark.parametrize("closed_next", [hours(0, 1), hours(1, 2)])
def test_an_hour_that_was_closed_early_is_done_again(rooms: Rooms, closed_next: Window) -> None:
    run(hours(-1, 0))
    close_hours(hours(0, 1), clock=lambda: T0 + HOUR / 2)
    steps.spark_features(hours(0, 1))
    steps.dbt_marts(hours(0, 1))
    assert steps.materialize(hours(0, 1)).window == hours(0, 1)
    rooms.fails = "spark"
    with pytest.raises(StepFailed):
        run(closed_next)
    for dataset in (EVENTS, "features/user_activity", "online/user_activity"):
        assert rooms.lake.covered(dataset) == [hours(-1, 0)], "half of it is missing"
    rooms.fails = None
    run(closed_next)
    for dataset in (RAW, EVENTS, "features/user_activity", "online/user_activity"):
        assert rooms.lake.covered(dataset) == [Window(T0 - HOUR, closed_next.end)]


def test_a_backfill_closes_what_was_closed_early_long_ago(rooms: Rooms) -> None:
    close_hours(hours(0, 1), clock=lambda: T0 + HOUR / 2)
    steps.spark_features(hours(0, 1))
    assert run(hours(72, 73)) == hours(72, 73)
    assert rooms.lake.covered(EVENTS) == [hours(72, 73)]
    run(hours(0, 1))
    assert rooms.lake.covered(EVENTS) == [hours(0, 1), hours(72, 73)]


def test_after_an_outage_hours_go_on_and_a_backfill_makes_them_right(rooms: Rooms) -> None:
    run(hours(0, 1))
    rooms.events = {T0 + n * HOUR: str(n) for n in (1, 30, 71)}
    assert run(hours(72, 73)) == hours(72, 73), "three days are left to a backfill"
    rooms.asked = []
    assert run(hours(1, 2)) == hours(1, 2)
    assert run(hours(30, 31)) == hours(30, 31), "out of order, 28 hours ahead"
    for hour in range(2, 71):
        run(hours(hour, hour + 1))
    assert [asked for asked in rooms.asked if asked[1].end > hours(0, 72).end] == []
    rooms.asked = []
    assert run(hours(71, 72)) == hours(71, 73)
    assert rooms.asked == [
        ("spark", hours(71, 72)),
        ("spark", hours(72, 73)),
        ("dbt", hours(71, 73)),
        ("feast", hours(71, 73)),
    ]
    for dataset in (EVENTS, "features/user_activity", "online/user_activity"):
        assert rooms.lake.covered(dataset) == [hours(0, 73)]


def test_an_hour_run_again_that_changes_nothing_costs_one_hour(rooms: Rooms) -> None:
    rooms.events = {T0 + n * HOUR: str(n) for n in range(4)}
    run(hours(0, 4))
    rooms.asked = []
    assert run(hours(1, 2)) == hours(1, 2)
    assert {window for _, window in rooms.asked} == {hours(1, 2)}
    rooms.events[T0 + HOUR] = "corrected"
    assert run(hours(1, 2)) == hours(1, 4)


def test_a_long_window_is_resumed_where_it_was_left(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "backfill_rows", 1)
    for day in range(3):
        rooms.lake.write_hour(RAW, T0 + day * 24 * HOUR, pa.table({"n": [1]}))
    rooms.fails = "dbt"
    with pytest.raises(StepFailed):
        run(hours(0, 72))
    rooms.fails, rooms.asked = None, []
    run(hours(0, 72))
    days = [hours(0, 24), hours(24, 48), hours(48, 72)]
    assert rooms.asked == [*(("dbt", day) for day in days), ("feast", hours(0, 72))]
    rooms.asked = []
    run(hours(0, 72))
    assert [room for room, _ in rooms.asked] == ["spark"] * 3 + ["dbt"] * 3 + ["feast"]
