"""What was acknowledged is stored, once, though workers and the server are killed meanwhile."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.soak import Found, clean, count, soak
from nearline.windows import HOUR, Window, hour_floor


@pytest.mark.long
def test_a_storm_with_kills_loses_nothing(tmp_path: Path) -> None:
    began = hour_floor(datetime.now(UTC))
    found = soak(tmp_path, events=6_000, workers=2, every=1_000, seed=5)
    arrived = Window(began, hour_floor(datetime.now(UTC)) + HOUR)
    clean(tmp_path, arrived)
    count(tmp_path, arrived, found)
    assert found.right, found
    assert found.workers_killed + found.servers_killed > 1


@pytest.mark.parametrize(
    "wrong", [{"acknowledged": 9}, {"stored": 9, "lost": 1}, {"stored": 11}, {"twice": 1}]
)
def test_what_is_not_right_is_told(wrong: dict[str, int]) -> None:
    right = {"events": 10, "acknowledged": 10, "stored": 10}
    assert Found(**right).right
    assert not Found(**right | wrong).right
