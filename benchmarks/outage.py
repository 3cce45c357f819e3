"""Days without a scheduler, made up for by `airflow backfill create`: is all right afterwards?

Two homes get the same stream. One has an outage of some days until last midnight: its features end
there, then a real Airflow comes back, runs the hour that is due, and is told to backfill. The other
computes the same hours in order. At the end both answer for every key of every batch view.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.harness import environment, free_port, machine, run, run_nearline, workplace
from nearline.console import JsonFlag, err, print_json, print_table
from nearline.windows import DAY, Window, midnight

if TYPE_CHECKING:
    from pipeline.airflow import Airflow

DAG = "features_hourly"
_POLL_S = 5
_KEYS_A_READ = 500

Answers = dict[str, dict[str, str]]
"""View → key → every feature and its time, as JSON."""


@dataclass(frozen=True)
class Found:
    """What was backfilled, what it took, and what still tells of the outage.

    `runs` are counted by state; `wrong` is what `nearline status --max-age-hours` would say;
    `differing` keys answer otherwise than in the home without an outage, by view.
    """

    missed: str
    runs: dict[str, int]
    seconds: float
    wrong: list[str]
    keys: dict[str, int]
    differing: dict[str, int]

    @property
    def right(self) -> bool:
        """Whether nothing tells of the outage any more."""
        return set(self.runs) == {"success"} and not self.wrong and not any(self.differing.values())


def measure(folder: Path, sizes: dict[str, int], outage: int) -> Found:
    """Live through the outage, make up for it, and compare with a home that had none."""
    end = midnight(datetime.now(UTC).date())
    days = Window(end - sizes["days"] * DAY, end)
    with (
        _home(folder / "outage", sizes, days) as broken,
        _home(folder / "order", sizes, days) as whole,
    ):
        broken.submit(_features, Window(days.start, end - outage * DAY)).result()
        began = time.perf_counter()
        missed, runs = broken.submit(_come_back, end - outage * DAY).result()
        seconds = time.perf_counter() - began
        whole.submit(
            _features, Window(days.start, broken.submit(_complete_until).result())
        ).result()
        ours, theirs = (pool.submit(_answers).result() for pool in (broken, whole))
        wrong = broken.submit(_wrong).result()
    return Found(
        str(missed),
        runs,
        round(seconds),
        wrong,
        {view: len(answers) for view, answers in theirs.items()},
        {view: _differing(ours[view], theirs[view]) for view in theirs},
    )


@contextmanager
def _home(home: Path, sizes: dict[str, int], days: Window) -> Iterator[Executor]:
    """A process that lives in a home with a stream of events, and its Airflow on a free port."""
    options = [text for name, size in sizes.items() for text in (f"--{name}", str(size))]
    run_nearline(home, "load", "synthetic", *options, "--end", days.end.isoformat())
    env = environment(home, schedule_start=days.start.isoformat(), airflow_port=str(free_port()))
    with ProcessPoolExecutor(1, get_context("spawn"), _live, (env,)) as pool:
        yield pool


def _live(env: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)


def _features(window: Window) -> None:
    from pipeline import steps

    for name in ("close_hours", "spark_features", "dbt_marts", "materialize", "feature_drift"):
        getattr(steps, name)(window)


def _come_back(broken_since: datetime) -> tuple[Window, dict[str, int]]:
    """Start Airflow, let the due hour run, backfill what lies before it; runs by their state."""
    from pipeline import services
    from pipeline.airflow import Airflow

    airflow = Airflow()
    airflow.start()
    try:
        airflow.wait_until_up()
        airflow.unpause(DAG)
        due = airflow.finish(DAG, airflow.triggered(DAG, seen=()), lambda _: None)
        missed = Window(broken_since, datetime.fromisoformat(due["data_interval_start"]))
        _backfill(missed)
        return missed, _await_backfill(airflow, len(list(missed.hours())))
    finally:
        services.stop_all()


def _backfill(missed: Window) -> None:
    """What an operator types."""
    hours = list(missed.hours())
    dates = ["--from-date", hours[0].isoformat(), "--to-date", hours[-1].isoformat()]
    command = [sys.executable, "-c", "from nearline.cli import main; main()", "airflow", "backfill"]
    subprocess.run([*command, "create", "--dag-id", DAG, *dates], check=True, stdout=sys.stderr)


def _await_backfill(airflow: "Airflow", hours: int) -> dict[str, int]:
    from pipeline.airflow import FINISHED

    while True:
        runs = airflow.runs(DAG)
        states = Counter(each["state"] for each in runs if each["run_type"] == "backfill")
        err.print(dict(states), highlight=False)
        if states.total() >= hours and set(states) <= set(FINISHED):
            return dict(states)
        time.sleep(_POLL_S)


def _complete_until() -> datetime:
    from nearline.lake import Lake

    found = Lake.open().watermark("online/user_activity")
    assert found is not None, "the due hour was brought online"
    return found


def _wrong() -> list[str]:
    from nearline.lake import Lake
    from pipeline.status import dataset_status

    found = dataset_status(Lake.open(), now=datetime.now(UTC))
    return [text for each in found for text in each.wrong(2 * DAY)]


def _answers() -> Answers:
    """What the online store says of every key of every view that is written every hour."""
    from feature_repo.views import BATCH_VIEWS
    from pipeline.online import feature_store, hourly_views

    answers: Answers = {}
    for view in BATCH_VIEWS:
        if view.name not in hourly_views():
            continue
        [key] = view.join_keys
        keys, names = _keys(str(key)), [f"{view.name}:{field.name}" for field in view.features]
        answers[view.name] = {}
        for at in range(0, len(keys), _KEYS_A_READ):
            asked = keys[at : at + _KEYS_A_READ]
            response = feature_store().get_online_features(names, [{key: each} for each in asked])
            columns = response.to_dict(include_event_timestamps=True)
            for row, each in enumerate(asked):
                told = {name: column[row] for name, column in columns.items()}
                answers[view.name][each] = json.dumps(told, default=str, sort_keys=True)
    return answers


def _keys(name: str) -> list[str]:
    from nearline.lake import CATALOGUE, EVENTS, Lake
    from nearline.schema import EVENT_SCHEMA, ITEM_ID, ITEM_SCHEMA, USER_ID

    lake = Lake.open()
    if name == USER_ID:
        rows = lake.read(EVENTS, schema=EVENT_SCHEMA, columns=[USER_ID])
    elif name == ITEM_ID:
        rows = lake.read_snapshot(CATALOGUE, schema=ITEM_SCHEMA)
    else:
        return ["all"]
    return sorted(rows[name].unique().to_pylist())


def _differing(ours: dict[str, str], theirs: dict[str, str]) -> int:
    return sum(ours.get(key) != theirs.get(key) for key in ours.keys() | theirs.keys())


def main(
    days: Annotated[int, typer.Option(min=2, help="Days of the stream.")] = 10,
    outage: Annotated[int, typer.Option(min=1, help="Its last days, without a scheduler.")] = 3,
    users: Annotated[int, typer.Option(min=1)] = 500,
    items: Annotated[int, typer.Option(min=1)] = 500,
    a_day: Annotated[int, typer.Option(min=1, help="Events a day.")] = 2_000,
    keep: Annotated[Path | None, typer.Option(help="Folder to work in, and keep.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """An outage of some days, backfilled by a real Airflow: the online store against one without.

    Takes about half a minute for each hour missed; exits with 1 where something is not right.
    Example: python -m benchmarks.outage --outage 1
    """
    sizes = {"users": users, "items": items, "events": a_day * days, "days": days}
    with workplace(keep) as folder:
        found = measure(folder, sizes, outage)
    if as_json:
        print_json({"machine": machine(), **asdict(found)})
    else:
        rows = [[name, str(value)] for name, value in asdict(found).items()]
        print_table(f"an outage of {outage} days", ["what", "found"], rows)
    if not found.right:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
