"""What MLflow is told of trainings, and that none fails for it."""

import fcntl
import logging
from pathlib import Path

import pytest
from mlflow.entities import Run as Told
from mlflow.tracking import MlflowClient

from nearline.releases import ReleaseManifest
from nearline.settings import settings
from nearline.windows import Window
from training.protocols import judge_leave_one_out
from training.recipe import load_recipe
from training.tracking import tracked
from training.watching import Watch

SMALL = load_recipe("small")


@pytest.fixture(autouse=True)
def followed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEARLINE_TRACK")
    settings.cache_clear()


def told(experiment: str) -> list[Told]:
    """The runs of an experiment, the newest first."""
    client = MlflowClient(settings().mlflow_uri)
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id])) if found else []


def curve(run: Told, figure: str) -> list[tuple[int, float]]:
    history = MlflowClient(settings().mlflow_uri).get_metric_history(run.info.run_id, figure)
    return [(each.step, each.value) for each in history]


def test_an_evaluation_is_followed_pass_by_pass(home: Path) -> None:
    users = {f"u{n}": [f"i{(n + step) % 30:02}" for step in range(6)] for n in range(30)}
    few = SMALL.learning.model_copy(update={"epochs": 3, "patience": 3})
    recipe = SMALL.model_copy(update={"learning": few})
    judged = judge_leave_one_out(users, None, recipe, max_minutes=5, seed=3, name="tiny.txt")
    [run] = told("evaluate")
    assert (run.info.run_name, run.info.status) == ("tiny.txt", "FINISHED")
    assert run.data.params["dim"] == str(SMALL.model.dim)
    assert (run.data.params["epochs"], run.data.params["seed"]) == ("3", "3")
    assert run.data.metrics["ndcg_at_10"] == judged.figures["ndcg@10"]
    assert [step for step, _ in curve(run, "watched/ndcg_at_10")] == [1, 2, 3]
    assert (home / "mlflow.db").is_file()


def test_a_release_is_told_with_its_verdict_and_its_rivals() -> None:
    window = Window.parse("2026-01-01T00:00Z", "2026-01-02T00:00Z")
    manifest = ReleaseManifest(
        version="v1",
        kind="nightly",
        parent=None,
        base=None,
        window_start=window.start,
        window_end=window.end,
        promoted=False,
        reasons=["worse than popularity", "too few items"],
        metrics={"ndcg@10": 0.25},
        baselines={"popular": {"ndcg@10": 0.5}},
    )
    with tracked("nightly", str(window), window=window) as run:
        run.released(manifest)
    [found] = told("nightly")
    assert found.data.metrics == {"ndcg_at_10": 0.25, "popular/ndcg_at_10": 0.5}
    assert found.data.tags["release"] == "v1"
    assert found.data.tags["promoted"] == "False"
    assert found.data.tags["reasons"] == "worse than popularity; too few items"


def test_a_training_that_raises_has_failed() -> None:
    watch = Watch("loss", lambda *_: 0.5)
    with pytest.raises(KeyboardInterrupt), tracked("nightly", "n") as run:
        _end(run.watched(watch))
    [found] = told("nightly")
    assert found.info.status == "FAILED"
    assert curve(found, "watched/loss") == [(1, 0.5)]


def _end(watch: Watch | None) -> None:
    assert watch is not None
    watch.figure(None, None)  # type: ignore[arg-type]
    raise KeyboardInterrupt


def test_hours_are_followed_on_demand_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with tracked("hourly", "h"):
        pass
    assert told("hourly") == []
    monkeypatch.setenv("NEARLINE_TRACK", "all")
    settings.cache_clear()
    with tracked("hourly", "h", parent="p"):
        pass
    assert [run.data.params for run in told("hourly")] == [{"parent": "p"}]


def test_one_training_at_a_time_makes_the_tables(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An hour may begin while a night does; MLflow itself does not wait."""

    def opened(_uri: str) -> None:
        with (home / "locks" / "tracking").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    monkeypatch.setattr("mlflow.tracking.MlflowClient", opened)
    with caplog.at_level(logging.WARNING), tracked("nightly", "n"):
        pass
    assert "Resource temporarily unavailable" in caplog.text, "the lock is held"


def test_a_server_out_of_reach_stops_no_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NEARLINE_MLFLOW_URI", "http://127.0.0.1:9")
    settings.cache_clear()
    with caplog.at_level(logging.WARNING), tracked("nightly", "n", a=1) as run:
        run.note(figures={"x": 1.0})
    assert "follows no training" in caplog.text


def test_a_database_that_goes_away_is_told_once(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), tracked("nightly", "n") as run:
        (home / "mlflow.db").write_bytes(b"no database")
        run.note(figures={"x": 1.0})
        run.note(figures={"x": 1.0})
    assert caplog.text.count("told no more") == 1
