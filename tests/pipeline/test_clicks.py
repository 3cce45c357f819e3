"""Clicks: sums over a window, and what a click is worth at its place."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner

from nearline.errors import BadInput, MissingPartition
from nearline.lake import Lake
from nearline.windows import HOUR, Window
from pipeline.clicks import (
    _SCHEMA,
    FEWEST_HOURS,
    By,
    Hour,
    _bounds,
    clicks,
    compute,
    estimated_eta,
)
from pipeline.marts import HOURLY_CLICKS

START = datetime(2026, 1, 1, 23, tzinfo=UTC)
WINDOW = Window(START, START + 2 * HOUR)


def row(source: str, position: int, shown: int, clicked: int, **more: Any) -> dict[str, Any]:
    counts = {"impressions": shown, "clicks": clicked, "conversions": 0}
    explored = {"explored_impressions": 0, "explored_clicks": 0}
    told = {"hour": START, "surface": "home", "source": source, "position": position}
    return told | counts | explored | more


@pytest.fixture
def lake(home: Path) -> Lake:
    found = Lake.open()
    rows = [row("encoder", 1, 10, 4), row("encoder", 2, 10, 3), row("content", 4, 5, 1)]
    late = row("encoder", 1, 0, 1, hour=START + HOUR, conversions=1)
    for hour, part in ((START, rows), (START + HOUR, [late])):
        found.write_hour(HOURLY_CLICKS, hour, pa.Table.from_pylist(part, schema=_SCHEMA))
    found.mark_complete(HOURLY_CLICKS, WINDOW, rows=4)
    return found


def test_hours_add_up_and_places_are_weighed(lake: Lake) -> None:
    found = compute(lake, WINDOW, [By.SOURCE])
    assert (found.eta, found.estimated) == (1.0, False)
    content, encoder = found.rows
    assert (content.by, content.impressions, content.clicks) == (("content",), 5, 1)
    assert (content.ctr, content.debiased_ctr) == (0.2, 0.8)
    assert (encoder.by, encoder.impressions, encoder.clicks) == (("encoder",), 20, 8)
    assert encoder.conversions == 1
    assert (encoder.ctr, encoder.debiased_ctr) == (8 / 20, (5 * 1 + 3 * 2) / 20)


def test_they_are_told_apart_by_what_is_asked(lake: Lake) -> None:
    found = compute(lake, WINDOW, [By.DAY, By.POSITION])
    assert [each.by for each in found.rows] == [
        *(("2026-01-01", "1"), ("2026-01-01", "2"), ("2026-01-01", "4")),
        ("2026-01-02", "1"),
    ]
    assert found.rows[-1].ctr is None
    assert [each.by for each in compute(lake, WINDOW, [By.HOUR]).rows] == [
        ("2026-01-01T23:00Z",),
        ("2026-01-02T00:00Z",),
    ]


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.5])
def test_what_was_explored_tells_how_places_are_looked_at(lake: Lake, eta: float) -> None:
    places = np.arange(2, 12)
    shown = np.full(10, 50_000)
    clicked = np.random.default_rng(3).poisson(0.2 * shown * places**-eta)
    assert estimated_eta(places, shown, clicked) == pytest.approx(eta, abs=0.03)
    rows = [
        row("encoder", place, seen, done, explored_impressions=seen, explored_clicks=done)
        for place, seen, done in zip(places.tolist(), shown.tolist(), clicked.tolist(), strict=True)
    ]
    lake.write_hour(HOURLY_CLICKS, START, pa.Table.from_pylist(rows, schema=_SCHEMA))
    found = compute(lake, WINDOW, [By.POSITION])
    assert found.estimated
    debiased = [each.debiased_ctr for each in found.rows if each.impressions]
    assert debiased == pytest.approx([0.2] * 10, rel=0.1)


def hours(counts: list[tuple[int, int]], lake: Lake) -> Window:
    """Hours with so many impressions and clicks, in the lake."""
    window = Window(START, START + len(counts) * HOUR)
    for hour, (shown, clicked) in zip(window.hours(), counts, strict=True):
        rows = [row("encoder", 1, shown, clicked, hour=hour)]
        lake.write_hour(HOURLY_CLICKS, hour, pa.Table.from_pylist(rows, schema=_SCHEMA))
    lake.mark_complete(HOURLY_CLICKS, window, rows=len(counts))
    return window


def test_an_interval_tells_how_hours_differ(lake: Lake) -> None:
    window = hours([(10, 1), (30, 6)] * 12, lake)
    [alike] = compute(lake, window, [By.SOURCE]).rows
    assert alike.ctr_95 is not None
    low, high = alike.ctr_95
    assert low < 7 / 40 < high
    [apart] = compute(lake, hours([(10, 7), (30, 0)] * 12, lake), [By.SOURCE]).rows
    assert apart.ctr == alike.ctr
    assert apart.ctr_95 is not None
    assert apart.ctr_95[1] - apart.ctr_95[0] > 2 * (high - low)
    assert all(each.ctr_95 is None for each in compute(lake, window, [By.HOUR]).rows)
    assert all(each.ctr_95 is None for each in compute(lake, window, [By.DAY]).rows[:1])


@pytest.mark.parametrize(
    "counts", [[(10, 1)] * (FEWEST_HOURS - 1), [(1, 2)] * FEWEST_HOURS, [(0, 1)] * FEWEST_HOURS]
)
def test_what_tells_too_little_has_no_interval(lake: Lake, counts: list[tuple[int, int]]) -> None:
    [found] = compute(lake, hours(counts, lake), [By.SOURCE]).rows
    assert found.ctr_95 is None


def test_an_interval_over_hours_holds_what_is_true_though_users_are_alike() -> None:
    """Users ask within an hour and click at rates of their own; hours are busy or not."""
    rng, held, rounds = np.random.default_rng(1), 0, 300
    for _ in range(rounds):
        counts = []
        for users in rng.integers(2, 12, size=48):
            trials = 10 * rng.geometric(0.3, size=users)
            clicked = rng.binomial(trials, rng.beta(1, 9, size=users))
            counts.append(Hour(int(clicked.sum()), int(trials.sum())))
        low, high = _bounds(counts) or (0.0, 0.0)
        held += low <= 0.1 <= high
    assert held / rounds == pytest.approx(0.95, abs=0.03)


def test_a_window_that_was_not_built_is_refused(lake: Lake) -> None:
    with pytest.raises(MissingPartition, match="hourly_clicks"):
        compute(lake, Window(START, START + 3 * HOUR), [By.SOURCE])
    lake.mark_complete(HOURLY_CLICKS, Window(START + 2 * HOUR, START + 3 * HOUR), rows=0)
    with pytest.raises(BadInput, match="nothing was shown"):
        compute(lake, Window(START + 2 * HOUR, START + 3 * HOUR), [By.SOURCE])


def test_the_command_tells_them(lake: Lake) -> None:
    app = typer.Typer()
    app.command()(clicks)
    when = ["--start", "2026-01-01T23:00Z", "--end", "2026-01-02T01:00Z"]
    told = CliRunner().invoke(app, [*when, "--by", "source", "--json"])
    assert told.exit_code == 0
    assert [each["clicks"] for each in json.loads(told.stdout)["rows"]] == [1, 8]
    shown = CliRunner().invoke(app, when)
    assert "encoder" in shown.stdout
    assert "40.00 %" in shown.stdout
    assert "assumed" in shown.output
