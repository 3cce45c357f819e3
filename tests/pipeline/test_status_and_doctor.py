import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nearline.cli import build
from nearline.lake import Lake
from nearline.settings import settings
from nearline.windows import Window
from pipeline import doctor
from pipeline.status import dataset_status

T0 = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_status_tells_age_and_gaps(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.mark_complete("events", Window(T0, T0 + HOUR), rows=3)
    lake.mark_complete("events", Window(T0 + 2 * HOUR, T0 + 3 * HOUR), rows=4)
    (found,) = dataset_status(lake, now=T0 + 5 * HOUR)
    assert (found.dataset, found.rows, found.age) == ("events", 7, 2 * HOUR)
    assert found.gaps == [Window(T0 + HOUR, T0 + 2 * HOUR)]


def test_the_command_prints_the_same_for_programs(home: Path) -> None:
    Lake.open().mark_complete("raw", Window(T0, T0 + HOUR), rows=1)
    done = CliRunner().invoke(build(), ["status", "--json"])
    assert done.exit_code == 0
    (row,) = json.loads(done.stdout)
    assert (row["dataset"], row["complete_until"]) == ("raw", "2026-01-01T01:00:00+00:00")


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
