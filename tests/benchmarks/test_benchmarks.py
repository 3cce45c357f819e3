"""The benchmarks can be found, and figure what they say."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.backfill import Figures, fits
from benchmarks.cold import left_out, parts, without
from benchmarks.forgetting import without_slice
from benchmarks.harness import run_command
from benchmarks.history import compare
from benchmarks.hour import Task, found
from benchmarks.swaps import Request, Swap, judge
from benchmarks.traits import measure
from nearline.domains import load_domain
from nearline.errors import BadInput, StepFailed
from nearline.schema import EVENT_SCHEMA, ITEM_SCHEMA
from nearline.sources.dataset import conform
from training.dataset import cut_time
from training.evaluation import Evaluation
from training.replay.timeline import make_timeline

FOLDER = Path(__file__).parents[2] / "benchmarks"
COMMANDS = sorted(
    path.stem
    for path in FOLDER.glob("*.py")
    if "typer.Argument" in path.read_text() or "typer.Option" in path.read_text()
)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_benchmark_is_documented_and_shows_an_example_of_itself(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 0
    assert f"python -m benchmarks.{name} " in " ".join(capsys.readouterr().out.split())
    assert f"benchmarks.{name}" in (FOLDER.parent / "docs/benchmarks.md").read_text()
    assert name in (FOLDER / "README.md").read_text()


def test_a_line_through_the_sizes_tells_fixed_cost_from_that_of_an_event() -> None:
    figures = [Figures(n, "s", 5 + n / 1e5, 0, 0, 0) for n in (100_000, 200_000, 400_000)]
    (line,) = fits(figures)
    assert (line.fixed_s, line.us_per_event) == (pytest.approx(5), pytest.approx(10))


def test_cold_items_are_left_out_of_all_but_what_is_asked() -> None:
    items = [f"i{n}" for n in range(40)]
    cold = left_out(items, 0.1, seed=1)
    assert len(cold) == 4
    assert cold == left_out(items, 0.1, seed=1) != left_out(items, 0.1, seed=2)
    told = {"u": ["a", "b", "a", "c"], "v": ["b", "b", "b"], "w": ["a", "b"]}
    assert without(told, {"b"}) == {"u": ["a", "a", "c"], "w": ["a", "b"]}
    found = Evaluation(np.array([0, 99, 0, 0]), np.arange(4), np.zeros(9, dtype=bool))
    first, others = parts(found, np.array([True, True, False, False]), seed=1)
    assert (first.events, first.ndcg, first.share, others.share) == (2, 0.5, 0.5, 1.0)


def test_nobody_learns_the_slice_by_which_forgetting_is_told() -> None:
    day = pd.Timestamp("2026-01-01", tz="UTC")
    rows = {
        "event_id": [f"e{n}" for n in range(40)],
        "user_id": ["u", "v"] * 20,
        "item_id": [f"i{n}" for n in range(40)],
        "event_type": "play",
        "event_ts": day + pd.to_timedelta(np.arange(40), unit="h"),
    }
    events = conform(pd.DataFrame(rows), EVENT_SCHEMA)
    domain = load_domain("entertainment")
    whole = make_timeline(events, ITEM_SCHEMA.empty_table(), domain, 0.5)
    kept = without_slice(whole)
    data = kept.seen(before=kept.start, items=40).data
    asked = whole.seen(before=whole.start, items=40).data.targets(since=cut_time(data.times, 0.1))
    assert (len(data), len(asked)) == (20, 2)
    assert set(data.targets()) == set(range(20)) - set(asked) - set(data.begins)
    later = kept.seen(before=kept.end, items=40).data
    assert len(later.targets()) == 40 - 2 - len(asked)


def test_hours_are_compared_by_their_medians() -> None:
    def hours(*seconds: float) -> list[dict[str, tuple[float, float]]]:
        steps = ("spark_features", "dbt_marts", "materialize", "feature_drift")
        return [dict.fromkeys(steps, (s, s / 2)) for s in seconds]

    whole = compare(hours(1, 9, 2), hours(3, 3, 3))[-1]
    assert (whole.short_s, whole.long_s, whole.ratio, whole.cpu_ratio) == (8, 12, 1.5, 1.5)


def test_requests_are_told_by_what_went_on_meanwhile() -> None:
    swaps = [Swap(pushing=10, moved=12, taken=13), Swap(pushing=20, moved=22, taken=23)]
    right = {("u", "old"): {("a", "b"), ("b", "a")}, ("u", "new"): {("c",)}}

    def asked(began: float, release: str, *items: str, status: int = 200) -> Request:
        return Request(began, 0.5, "u", status, release, items)

    requests = [
        asked(9.6, "old", "a", "b"),
        asked(11, "old", "b", "a"),
        asked(11.6, "new", "a", "b"),
        asked(12.9, "new", "c"),
        asked(22.9, "", status=503),
        asked(23, "new", "c"),
        asked(5, "other", "c"),
        asked(11, "old", "c")._replace(late=True),
    ]
    found = {each.phase: each for each in judge(requests, swaps, right)}
    counts = {p: (f.requests, f.failed, f.mixed, f.late) for p, f in found.items()}
    assert counts == {"outside": (2, 0, 1, 0), "push": (3, 0, 0, 1), "swap": (3, 1, 1, 0)}
    assert found["push"].p99_ms == 500


def test_what_is_between_the_tasks_of_an_hour_is_airflows() -> None:
    spans = {"close_hours": (11.0, 12.5), "spark_features": (14.0, 20.0)}
    told = found(100, 2.0, spans, closed=10.0, answered=21.0)
    assert told.tasks == [Task("close_hours", 1.0, 1.5), Task("spark_features", 1.5, 6.0)]
    assert (told.a_second, told.seconds, told.airflow, told.swap) == (50, 11.0, 2.5, 1.0)


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(StepFailed, match="no such thing"):
        run_command([sys.executable, "-c", "raise SystemExit('no such thing')"], {})


def test_the_traits_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    rows = ["a,x,0", "a,y,60", "a,x,120", "a,x,86400", "b,x,10"]
    log.write_text("\n".join(["user,item,at", *rows]))
    found = measure([log], user="user", item="item", time="at", session=None)
    assert found["sessions"]["mean"] == pytest.approx(5 / 3, abs=1e-3)
    assert found["sessions"]["of_one_event"] == pytest.approx(2 / 3, abs=1e-3)
    assert found["gaps"]["median_s"] == 60
    assert found["gaps"]["median_days_between_sessions"] == pytest.approx(0.999, abs=1e-3)
    assert found["repeats"] == {"by_user": 0.4, "in_session": 0.2}
    assert found["items"]["top_10_percent"] == 0.8


def test_a_log_without_times_needs_sessions(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--session"):
        measure([tmp_path / "log.csv"], user="u", item="i", time=None, session=None)
