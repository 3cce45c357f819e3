from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from nearline.errors import BadInput
from nearline.windows import Window
from pipeline.runs import run_window, triggering_window

T0 = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def event(start: datetime, end: datetime) -> SimpleNamespace:
    return SimpleNamespace(extra={"start": start.isoformat(), "end": end.isoformat()})


def test_a_scheduled_run_is_about_its_interval() -> None:
    context = {"data_interval_start": T0, "data_interval_end": T0 + HOUR, "params": {"start": None}}
    assert run_window(context) == Window(T0, T0 + HOUR)


def test_a_run_that_waits_some_minutes_is_about_whole_hours() -> None:
    late = timedelta(minutes=30)
    context = {"data_interval_start": T0 + late, "data_interval_end": T0 + 24 * HOUR + late}
    assert run_window(context) == Window(T0, T0 + 24 * HOUR)


def test_parameters_win() -> None:
    params = {"start": "2025-01-01", "end": "2026-01-01T00:00:00Z"}
    context = {"data_interval_start": T0, "data_interval_end": T0 + HOUR, "params": params}
    assert run_window(context) == Window(T0.replace(year=2025), T0)


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"data_interval_start": T0, "data_interval_end": T0},
        {"params": {"start": "2026-01-01", "end": None}},
    ],
)
def test_a_run_without_a_window_is_refused(context: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        run_window(context)


def test_hours_that_arrive_together_are_one_window() -> None:
    events = [event(T0 + HOUR, T0 + 2 * HOUR), event(T0, T0 + HOUR)]
    context = {"triggering_asset_events": {"features": events}}
    assert triggering_window(context) == Window(T0, T0 + 2 * HOUR)


def test_a_manual_run_of_an_asset_dag_takes_parameters() -> None:
    params = {"start": "2026-01-01T00:00", "end": "2026-01-01T01:00"}
    assert triggering_window({"params": params}) == Window(T0, T0 + HOUR)
