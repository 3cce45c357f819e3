"""Every DAG file can be read, and keeps the house rules."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.airflow import POOLS, environment

ROOT = Path(__file__).parents[2]
LONG_NIGHT = 600

READ = """
import json
from airflow.dag_processing.dagbag import DagBag
bag = DagBag()
print(json.dumps({
    "errors": bag.import_errors,
    "dags": {
        dag.dag_id: {
            "tags": sorted(dag.tags), "doc": bool(dag.doc_md), "catchup": dag.catchup,
            "waits_for": [a.name for a in getattr(dag.timetable.asset_condition, "objects", ())],
            "tells": sorted({outlet.name for t in dag.tasks for outlet in t.outlets}),
            "timetable": type(dag.timetable).__name__, "runs_at_once": dag.max_active_runs,
            "tasks": {
                t.task_id: [t.retries, t.pool, t.execution_timeout.total_seconds() / 60]
                for t in dag.tasks
            },
            "rules": {t.task_id: t.trigger_rule for t in dag.tasks},
        }
        for dag in bag.dags.values()
    },
}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("home")
    own = {"AIRFLOW_HOME": str(home), "NEARLINE_HOME": str(home)}
    env = environment() | own | {"NEARLINE_MAX_TRAIN_MINUTES": str(LONG_NIGHT)}
    done = subprocess.run([sys.executable, "-c", READ], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_every_file_can_be_read(found: dict[str, Any]) -> None:
    assert found["errors"] == {}
    assert set(found["dags"]) == {
        "features_hourly",
        "nearline_hourly",
        "train_nightly",
        "housekeeping_daily",
    }


def test_every_dag_is_documented_tagged_and_bounded(found: dict[str, Any]) -> None:
    for name, dag in found["dags"].items():
        assert dag["doc"], name
        assert "nearline" in dag["tags"], name
        for task, (retries, pool, minutes) in dag["tasks"].items():
            assert retries >= 1, task
            assert (minutes > LONG_NIGHT) is (task == "train"), task
            assert pool in {*POOLS, "default_pool"}, task


def test_dags_start_one_another_by_assets(found: dict[str, Any]) -> None:
    dags = found["dags"]
    assert {name: (dag["timetable"], dag["waits_for"]) for name, dag in dags.items()} == {
        "features_hourly": ("CronDataIntervalTimetable", []),
        "nearline_hourly": ("AssetTriggeredTimetable", ["features", "overtaken"]),
        "train_nightly": ("AssetOrTimeSchedule", ["night_wanted"]),
        "housekeeping_daily": ("CronDataIntervalTimetable", []),
    }
    assert "features" in dags["features_hourly"]["tells"]
    assert dags["nearline_hourly"]["tells"] == ["night_wanted", "overtaken", "release"]
    assert dags["train_nightly"]["tells"] == ["overtaken", "release"]


def test_hours_go_on_beside_a_night_and_never_two_of_a_kind_run_at_once(
    found: dict[str, Any],
) -> None:
    dags = found["dags"]
    assert [dag["runs_at_once"] for dag in dags.values()] == [1] * 4
    pools = {
        name: {task: pool for task, (_, pool, _) in dag["tasks"].items()}
        for name, dag in dags.items()
    }
    nights = pools["train_nightly"]["train"]
    assert nights in POOLS, "a backfill starts many nights: the pool has one slot"
    assert nights not in pools["nearline_hourly"].values()


def test_what_a_run_leaves_behind_is_put_right_whatever_became_of_it(
    found: dict[str, Any],
) -> None:
    """All other tasks run only after what they follow has succeeded."""
    rules = {
        (name, task): rule
        for name, dag in found["dags"].items()
        for task, rule in dag["rules"].items()
        if rule != "all_success"
    }
    assert rules == {
        ("nearline_hourly", "ask_for_night"): "all_done",
        ("nearline_hourly", "push_active"): "none_failed",
        ("nearline_hourly", "run_again"): "none_failed",
        ("train_nightly", "push_active"): "none_failed",
        ("train_nightly", "run_again"): "none_failed",
    }


def test_no_task_touches_the_scheduler_database() -> None:
    for path in (ROOT / "dags").glob("*.py"):
        text = path.read_text()
        assert "airflow.models" not in text, path.name
        assert "session" not in text, path.name
