"""The DAGs, run by Airflow on a small stream: a night, an hour, and an hour without anything."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nearline.domains import load_domain
from nearline.lake import EVENTS, RAW, Lake
from nearline.schema import EVENT_SCHEMA
from nearline.settings import settings
from nearline.sources.dataset import append_raw, upsert_items
from nearline.sources.synthetic import Stream, StreamSpec
from nearline.windows import HOUR, Window
from pipeline.airflow import POOLS, environment

pytestmark = pytest.mark.slow
END = datetime(2026, 3, 5, tzinfo=UTC)
SPEC = StreamSpec(users=40, items=50, events=2500, days=4, end=END, seed=15)
LAST = Window.trailing(END, hours=1)
BEFORE = Window(SPEC.start, LAST.start)
EMPTY = Window(END, END + HOUR)

RUN = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag()
for dag_id, start, end in json.loads(sys.argv[1]):
    run = bag.dags[dag_id].test(run_conf={"start": start, "end": end})
    states = {task.task_id: str(task.state) for task in run.get_task_instances()}
    print("RUN " + json.dumps([dag_id, str(run.state), states]))
"""


REPLACED = """
from nearline.windows import Window
from pipeline import steps

steps.finetune = lambda window: "refused" if window.start.hour == 22 else "overtaken"
steps.passed = lambda version: version != "refused"
steps.push = steps.push_active = lambda *version: 0
steps.promote = lambda version: False
steps.overtaken = lambda version: (
    Window.parse("2026-03-04T20:00Z", "2026-03-04T23:00Z") if version == "overtaken" else None
)
steps.night_wanted = lambda window, version: None
"""
"""Steps that do nothing: the release of the hour at 22:00 is refused, all others are overtaken."""


def airflow(env: dict[str, str], *arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def run(env: dict[str, str], *runs: tuple[str, Window], before: str = "") -> list[list[Any]]:
    """The id, state and states of tasks of each run; `before` is run first, where they will be."""
    asked = [[dag_id, w.start.isoformat(), w.end.isoformat()] for dag_id, w in runs]
    printed = airflow(env, "-c", before + RUN, json.dumps(asked)).splitlines()
    return [json.loads(line[4:]) for line in printed if line.startswith("RUN ")]


@pytest.mark.usefixtures("home")
def test_the_dags_take_a_stream_round_the_ring() -> None:
    stream, lake, env = Stream(SPEC, load_domain("entertainment")), Lake.open(), environment()
    upsert_items(lake, stream.items())
    for day in stream.batches():
        append_raw(lake, day)
    lake.mark_complete(RAW, Window(SPEC.start, END), rows=SPEC.events)
    begin_airflow(env)

    early, *_ = run(env, ("nearline_hourly", LAST))
    assert early[1:] == ["success", QUIET]

    features, night = run(env, ("features_hourly", BEFORE), ("train_nightly", BEFORE))
    assert features[1:] == ["success", dict.fromkeys(FEATURE_TASKS, "success")]
    assert night[1:] == [
        "success",
        dict.fromkeys(("item_neighbours", "train", "gate", *LATER, "push_active"), "success")
        | {"run_again": "skipped"},
    ]

    hour, tuned, nothing, still = run(
        env | {"NEARLINE_DRIFT_HOURS": "1"},
        ("features_hourly", LAST),
        ("nearline_hourly", LAST),
        ("features_hourly", EMPTY),
        ("nearline_hourly", EMPTY),
    )
    assert [found[1] for found in (hour, tuned, nothing, still)] == ["success"] * 4
    wanted = {"ask_for_night": "success", "night_asked": "success"}
    assert tuned[2] == QUIET | dict.fromkeys(LATER, "success") | wanted
    assert still[2] == QUIET | wanted, "a quiet hour asks again, an hour after the last"
    assert lake.read(EVENTS, LAST, schema=EVENT_SCHEMA).num_rows > 0
    pointer = json.loads((Path(settings().releases) / "active.json").read_text())
    assert "-hourly-" in pointer["active"]
    assert "-nightly-" in pointer["history"][-1]
    days = [Window.trailing(end, hours=24) for end in (END, EMPTY.end)]
    told = [{"start": day.start.isoformat(), "end": day.end.isoformat()} for day in days]
    assert asked_for("night_wanted", Path(env["AIRFLOW_HOME"]) / "airflow.db") == told


@pytest.mark.usefixtures("home")
def test_hours_are_run_again_where_a_release_was_overtaken_and_not_where_it_was_refused() -> None:
    env = environment()
    begin_airflow(env)
    overtaken, refused = run(
        env,
        ("nearline_hourly", LAST),
        ("nearline_hourly", Window(LAST.start - HOUR, LAST.start)),
        before=REPLACED,
    )
    assert overtaken[1:] == ["success", QUIET | dict.fromkeys(("push", "run_again"), "success")]
    assert refused[1:] == ["success", QUIET]
    database = Path(env["AIRFLOW_HOME"]) / "airflow.db"
    hours = {"start": "2026-03-04T20:00:00+00:00", "end": "2026-03-04T23:00:00+00:00"}
    assert asked_for("overtaken", database) == [hours]
    assert asked_for("release", database) == []


def begin_airflow(env: dict[str, str]) -> None:
    airflow(env, "-m", "airflow", "db", "migrate")
    for pool in POOLS:
        airflow(env, "-m", "airflow", "pools", "set", pool, "1", pool)


def asked_for(asset: str, database: Path) -> list[dict[str, str]]:
    """What each event of an asset carries, as the scheduler will read it."""
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(
            "SELECT asset_event.extra FROM asset_event JOIN asset ON asset.id = asset_id "
            "WHERE asset.name = ?",
            (asset,),
        ).fetchall()
    return [json.loads(extra) for (extra,) in rows]


LATER = ("push", "promote")
QUIET = dict.fromkeys(("finetune", "gate", "push_active"), "success") | dict.fromkeys(
    (*LATER, "ask_for_night", "night_asked", "run_again"), "skipped"
)
FEATURE_TASKS = ("close_hours", "spark_features", "dbt_marts", "materialize", "feature_drift")
