import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from nearline.cli import build
from nearline.lake import Lake
from nearline.releases import Drift, ReleaseManifest, ReleaseStore
from nearline.settings import settings
from nearline.windows import Window
from pipeline import doctor
from pipeline.status import dataset_status, told

T0 = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_status_tells_age_and_gaps(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.mark_complete("events", Window(T0, T0 + HOUR), rows=3)
    lake.mark_complete("events", Window(T0 + 2 * HOUR, T0 + 3 * HOUR), rows=4)
    (found,) = dataset_status(lake, now=T0 + 5 * HOUR)
    assert (found.dataset, found.rows, found.age) == ("events", 7, 2 * HOUR)
    assert found.gaps == [Window(T0 + HOUR, T0 + 2 * HOUR)]
    assert found.wrong(timedelta(hours=2)) == ["events has 1 h missing: 2026-01-01T01 + 1 h"]
    assert found.wrong(HOUR)[0] == "events is 2.0 h old (complete until 2026-01-01T03:00Z)"


def test_layers_come_in_the_order_of_the_ring_with_all_that_is_known(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    for dataset in ("online/trending", "features/item_neighbours", "raw", "features/trending"):
        for day in (0, 2):
            lake.mark_complete(dataset, Window.of_hour(T0 + 24 * day * HOUR), rows=1)
    lake.write_hour("raw", T0, pa.table({"n": [1]}))
    lake.expire("raw", T0 + 24 * HOUR)
    lake.ledger("features/trending").make_stale(Window.of_hour(T0 + 48 * HOUR))
    raw, neighbours, trending, online = dataset_status(lake, now=T0 + 49 * HOUR)
    assert [found.dataset for found in (raw, neighbours, trending, online)] == [
        "raw",
        "features/item_neighbours",
        "features/trending",
        "online/trending",
    ]
    assert (raw.expired, raw.complete_from) == (T0 + 24 * HOUR, T0 + 48 * HOUR)
    assert neighbours.gaps == [], "made for single moments"
    assert trending.stale == [Window.of_hour(T0 + 48 * HOUR)]
    assert trending.wrong(HOUR) == [
        "features/trending has 47 h missing: 2026-01-01T01 + 47 h",
        "features/trending has 1 h stale: 2026-01-03T00 + 1 h",
    ]


def test_many_gaps_are_summed_up() -> None:
    gaps = [Window.of_hour(T0 + 2 * n * HOUR) for n in range(9)]
    assert told(gaps) == (
        "2026-01-01T00 + 1 h, 2026-01-01T02 + 1 h, 2026-01-01T04 + 1 h, and 6 more (6 h)"
    )


@pytest.mark.parametrize(("until", "limit", "code"), [(2, "3", 0), (2, "1", 1), (30, "1", 1)])
def test_status_is_a_check_for_monitoring(home: Path, until: int, limit: str, code: int) -> None:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    hours = Window.trailing(now - (until - 1) * HOUR, hours=3)
    Lake.open().mark_complete("events", hours, rows=1)
    done = CliRunner().invoke(build(), ["status", "--max-age-hours", limit])
    assert done.exit_code == code
    assert CliRunner().invoke(build(), ["status"]).exit_code == 0


def test_an_empty_lake_does_not_pass_the_check(home: Path) -> None:
    assert CliRunner().invoke(build(), ["status", "--max-age-hours", "1"]).exit_code == 1


def test_the_command_prints_the_same_for_programs(home: Path) -> None:
    Lake.open().mark_complete("raw", Window(T0, T0 + HOUR), rows=1)
    done = CliRunner().invoke(build(), ["status", "--json"])
    assert done.exit_code == 0
    (row,) = json.loads(done.stdout)
    assert (row["dataset"], row["complete_until"]) == ("raw", "2026-01-01T01:00:00+00:00")


DRIFT = {
    "changed": 0.12,
    "bound": 0.5,
    "users": 9,
    "hours": 5.0,
    "max_hours": 36,
    "asked_at_hours": None,
}


def activate(drift: Drift | None) -> tuple[str, str]:
    """Make a night active, then an hour after it, with nothing in them: the versions of both."""
    hour = {"kind": "hourly", "window_end": T0 + HOUR, "drift": drift}
    night = publish()
    return night, publish(parent=night, base=night, **hour)


def publish(**given: Any) -> str:
    """Publish a release that is `given`, for the rest an empty night's, and make it active."""
    store = ReleaseStore.open()
    night = {
        "kind": "nightly",
        "parent": None,
        "base": None,
        "window_start": T0 - HOUR,
        "window_end": T0,
        "promoted": True,
        "reasons": [],
        "metrics": {},
    }
    with store.stage() as folder:
        (folder / "weights").write_text("w")
        version = store.publish(folder, ReleaseManifest.model_validate(night | given))
    store.promote(version)
    return version


def test_the_active_release_is_told_beside_its_night(home: Path) -> None:
    Lake.open().mark_complete("raw", Window(T0, T0 + HOUR), rows=1)
    night, version = activate(Drift.model_validate(DRIFT))
    _, row = json.loads(CliRunner().invoke(build(), ["status", "--json"]).stdout)
    assert (row["dataset"], row["complete_until"]) == (
        "releases/active",
        "2026-01-01T01:00:00+00:00",
    )
    assert (row["version"], row["night"], row["drift"]) == (version, night, DRIFT)
    assert row["online"] is None, "nothing was pushed"
    told = CliRunner(env={"COLUMNS": "200"}).invoke(build(), ["status"]).stdout
    assert "12.0% of the night's lists changed (at most 50%), 5 h after it" in told


@pytest.mark.parametrize(
    ("name", "told"), [("weights", "weights was changed"), ("manifest.json", "is unreadable")]
)
def test_a_damaged_release_is_told_and_does_not_pass_the_check(
    home: Path, name: str, told: str
) -> None:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    Lake.open().mark_complete("raw", Window.trailing(now, hours=1), rows=1)
    _, version = activate(None)
    check = ["status", "--max-age-hours", "3"]
    assert CliRunner().invoke(build(), check).exit_code == 0
    (ReleaseStore.open().root / version / name).write_text("?")
    _, row = json.loads(CliRunner().invoke(build(), ["status", "--json"]).stdout)
    assert row["version"] == version
    assert told in row["damaged"]
    done = CliRunner(env={"COLUMNS": "200"}).invoke(build(), check)
    assert done.exit_code == 1
    assert told in done.stdout


def test_status_does_not_need_the_online_store(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEARLINE_ONLINE_STORE", "redis")
    monkeypatch.setenv("NEARLINE_REDIS_URL", "redis://127.0.0.1:1/0")
    settings.cache_clear()
    activate(None)
    (row,) = json.loads(CliRunner().invoke(build(), ["status", "--json"]).stdout)
    assert "the online store was not read" in row["online"]
    assert row["drift"] is None


def test_doctor_says_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home))
    monkeypatch.setenv("NEARLINE_ONLINE_STORE", "redis")
    monkeypatch.setenv("NEARLINE_REDIS_URL", "redis://127.0.0.1:1/0")
    settings.cache_clear()
    found = {f.check: f for f in doctor.examine()}
    assert "install a Java 17" in found["java"].detail
    assert not found["redis"].ok
    assert found["domain"].ok
    assert CliRunner().invoke(build(), ["doctor"]).exit_code == 1


def test_doctor_tells_of_a_redis_that_takes_connections_and_never_answers(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("NEARLINE_ONLINE_STORE", "redis")
        monkeypatch.setenv("NEARLINE_REDIS_URL", f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        monkeypatch.setenv("NEARLINE_REDIS_TIMEOUT_S", "0.1")
        settings.cache_clear()
        found = {f.check: f for f in doctor.examine()}
    assert not found["redis"].ok
    assert "Redis does not answer" in found["redis"].detail
