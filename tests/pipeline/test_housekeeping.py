"""What housekeeping removes, puts together, and leaves alone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from nearline.domains import load_domain
from nearline.errors import ConfigError, MissingPartition
from nearline.intake import Impression, ImpressionLog, Journal, close_hours
from nearline.intake.impressions import IMPRESSION_SCHEMA, IMPRESSIONS
from nearline.lake import EVENTS, RAW, Lake
from nearline.schema import RAW_SCHEMA
from nearline.settings import settings
from nearline.windows import HOUR, Window
from pipeline.housekeeping import tidy_lake, tidy_online
from pipeline.retention import MART_REACH, SPARK_REACH, require_kept

NOON = datetime(2026, 5, 9, 12, tzinfo=UTC)
TODAY = Window.trailing(NOON, hours=24)
DAY = 24 * HOUR
NOTHING = {
    "forgotten": 0,
    "journals": 0,
    "expired_days": 0,
    "compacted_files": 0,
    "ledger_entries": 0,
    "releases": 0,
}


def fill(lake: Lake, dataset: str, *, days: int) -> None:
    """An hour of rows every 12 hours of the last days, and an entry for each hour."""
    start = NOON.replace(hour=0) - days * DAY
    for hour in Window(start, NOON).hours():
        if hour.hour in (1, 13):
            lake.write_hour(dataset, hour, pa.table({"n": [hour.hour]}))
        lake.mark_complete(dataset, Window.of_hour(hour), rows=int(hour.hour in (1, 13)))


@pytest.mark.usefixtures("home")
def test_days_that_late_events_can_reach_stay_as_they_are() -> None:
    lake = Lake.open()
    fill(lake, EVENTS, days=5)
    fill(lake, "online/user_activity", days=5)
    # Late events may come for 48 hours: the newest day that is settled is the 6th.
    assert tidy_lake(TODAY) == NOTHING | {"compacted_files": 6, "ledger_entries": 72}
    assert tidy_online(TODAY) == {"forgotten": 0, "expired_rows": 0, "ledger_entries": 72}
    files = lake.files(EVENTS)
    assert [path.count("hr=") for path in files] == [0, 0, 0, 1, 1, 1, 1, 1]
    assert lake.covered(EVENTS) == [Window(NOON.replace(hour=0) - 5 * DAY, NOON)]
    assert lake.ledger(EVENTS).rows() == 11
    assert tidy_lake(TODAY) == NOTHING


@pytest.mark.usefixtures("home")
def test_a_day_that_was_written_again_is_compacted_again() -> None:
    lake = Lake.open()
    fill(lake, EVENTS, days=5)
    tidy_lake(TODAY)
    hour = Window.of_hour(NOON - 4 * DAY)
    lake.expand(EVENTS, hour)
    lake.write_hour(EVENTS, hour.start, pa.table({"n": [7]}))
    lake.mark_complete(EVENTS, hour, rows=1)
    assert tidy_lake(TODAY) == NOTHING | {"compacted_files": 3, "ledger_entries": 1}
    assert len(lake.hours(EVENTS, Window.trailing(NOON, hours=200))) == 12


@pytest.mark.usefixtures("home")
def test_each_layer_keeps_its_days(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "keep_partials_days", 3)
    lake = Lake.open()
    for dataset in (RAW, "partials/user_hourly", "features/trending"):
        fill(lake, dataset, days=5)
    assert tidy_lake(TODAY)["expired_days"] == 2
    first = NOON.replace(hour=0)
    kept = lake.covered("partials/user_hourly")[0].start
    assert kept == first - 3 * DAY
    assert lake.covered(RAW)[0].start == lake.covered("features/trending")[0].start
    assert lake.covered(RAW)[0].start == first - 5 * DAY
    with pytest.raises(MissingPartition, match=r"partials/user_hourly is needed .*KEEP_PARTIALS"):
        require_kept(lake, MART_REACH, Window(NOON - HOUR, NOON))
    require_kept(lake, SPARK_REACH, Window(NOON - HOUR, NOON))


@pytest.mark.usefixtures("home")
def test_what_was_shown_is_kept_for_its_days(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "keep_impressions_days", 7)
    clock = [NOON - 10 * DAY]
    log = ImpressionLog(settings().intake / "impressions", clock=lambda: clock[0])
    for days in (10, 9, 7, 1):
        clock[0] = NOON - days * DAY
        log.add(Impression(f"r{days}", "trending", "v", "trending", [], [], []))
    log.close()
    close_hours(Window(NOON - 10 * DAY, NOON), clock=lambda: NOON)
    assert tidy_lake(TODAY)["expired_days"] == 2
    kept = Lake.open().read(IMPRESSIONS, schema=IMPRESSION_SCHEMA)["request_id"].to_pylist()
    assert kept == ["r7", "r1"]
    assert tidy_lake(TODAY) == NOTHING


@pytest.mark.usefixtures("home")
def test_what_is_online_of_users_is_kept_as_long_as_events(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[datetime] = []
    monkeypatch.setattr("pipeline.online.expire_users", lambda before: asked.append(before) or 3)
    assert tidy_online(TODAY)["expired_rows"] == 3
    monkeypatch.setattr(settings(), "keep_events_days", 0)
    assert tidy_online(TODAY)["expired_rows"] == 0
    assert asked == [NOON - 430 * DAY]


@pytest.mark.usefixtures("home")
def test_journals_go_once_what_they_hold_is_in_the_lake() -> None:
    clock = [NOON - 60 * HOUR]
    journal = Journal(
        settings().intake, load_domain("entertainment"), late_hours=48, clock=lambda: clock[0]
    )
    for event_id in ("old", "new"):
        event = {"event_id": event_id, "user_id": "u", "item_id": "i", "event_type": "comment"}
        journal.append([event | {"event_ts": clock[0].isoformat()}])
        clock[0] = NOON - 2 * HOUR
    journal.close()
    assert tidy_lake(TODAY) == NOTHING | {"journals": 1}
    raw = Lake.open().read(RAW, schema=RAW_SCHEMA)
    assert raw["event_id"].to_pylist() == ["old"]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("KEEP_EVENTS_DAYS", "400", "trainings .NEARLINE_HISTORY_DAYS. look back 403 days"),
        ("KEEP_PARTIALS_DAYS", "100", "user sequences look back 368 days"),
        ("KEEP_IMPRESSIONS_DAYS", "5", "journals that they are made of look back 6 days"),
        ("KEEP_FEATURES_DAYS", "7", "feature views look back 35 days"),
        ("HISTORY_DAYS", "500", "KEEP_EVENTS_DAYS=430 is too little"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(f"NEARLINE_{name}", value)
    settings.cache_clear()
    with pytest.raises(ConfigError, match=told):
        settings()
    for layer in ("EVENTS", "IMPRESSIONS", "PARTIALS", "FEATURES"):
        monkeypatch.setenv(f"NEARLINE_KEEP_{layer}_DAYS", "0")
    settings.cache_clear()
    assert settings().keep_days("events") is None


def test_an_hour_costs_the_same_after_many_weeks_of_hours(home: Path) -> None:
    """What is listed for an hour, housekeeping run each week, is a few files for ever."""
    lake, start, weeks = Lake.open(), NOON - timedelta(days=365), 8
    for week in range(weeks):
        hours = Window(start + week * 7 * DAY, start + (week + 1) * 7 * DAY)
        for hour in hours.hours():
            lake.mark_complete("x", Window.of_hour(hour), rows=1)
        lake.ledger("x").settle(hours.end - 2 * DAY)
    assert len(lake.fs.ls(f"{lake.root}/_ledger/x")) == 49
    assert lake.ledger("x").rows() == weeks * 168
