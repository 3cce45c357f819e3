"""An hour of many events closes: how soon does a release that has learned it answer?

Nothing is left out: events are posted to `nearline serve`, Airflow runs `features_hourly` and, by
its asset, `nearline_hourly`, and the end is the first answer of the new release. The hour is the
running one, closed early, after a day of hours like it and a night that learned them.
"""

import os
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer
from tqdm import tqdm

from benchmarks.harness import environment, free_port, machine, run, workplace
from nearline.console import JsonFlag, err, print_json, print_table
from nearline.errors import StepFailed
from nearline.windows import DAY, Window, hour_floor

if TYPE_CHECKING:
    from nearline.sources.synthetic import Stream
    from pipeline.airflow import Airflow
    from serving.client import RecommendationClient

ON_THE_WAY = (
    ("features_hourly", ("close_hours", "spark_features", "dbt_marts", "materialize")),
    ("nearline_hourly", ("finetune", "gate", "push", "promote")),
)
"""The tasks that an event waits for, in their order; others run beside them or after."""

_BATCH = 500
_PATIENCE_S = 120


@dataclass(frozen=True)
class Task:
    """One task of the way: seconds that it waited for after the one before, and that it ran."""

    name: str
    waited: float
    ran: float


@dataclass(frozen=True)
class Found:
    """What was posted, at what rate a second, and the way from the closed hour to an answer.

    `seconds` run from the hour's end, when its run was asked for, to the first answer of the new
    release. Airflow's share of them is what no task ran in before the release was live; `swap` is
    the rest, from the last task's end to that answer.
    """

    events: int
    a_second: float
    tasks: list[Task]
    seconds: float
    airflow: float
    swap: float


def site(*, users: int, items: int, events: int, end: datetime) -> "Stream":
    """Two days of a site with so many events an hour: one up to `end`, and the one after it."""
    from nearline.domains import load_domain
    from nearline.settings import settings
    from nearline.sources.synthetic import Stream, StreamSpec

    spec = StreamSpec(users, items, 2 * 24 * events, 2, end + DAY, settings().seed)
    return Stream(spec, load_domain(settings().domain))


def prepare(stream: "Stream") -> None:
    """The first day, its features, and a night that is live."""
    from nearline.intake.raw import merge_raw
    from nearline.lake import RAW, Lake
    from nearline.sources.dataset import upsert_items
    from pipeline import steps

    lake, day = Lake.open(), Window(stream.spec.start, stream.spec.start + DAY)
    upsert_items(lake, stream.items())
    for batch in takewhile(lambda batch: not _later(stream, batch), stream.batches()):
        merge_raw(lake, batch)
    lake.mark_complete(RAW, day, rows=stream.spec.events // 2)
    for name in ("spark_features", "dbt_marts", "materialize"):
        getattr(steps, name)(day)
    night = steps.train(day)
    steps.push(night)
    steps.promote(night)


def happens(stream: "Stream", count: int) -> list[dict[str, Any]]:
    """The first events of the second day, as if they were those of the running hour so far."""
    second = stream.spec.start + DAY
    first = next(batch for batch in stream.batches() if _later(stream, batch))
    rows = first.sort_by("received_ts").slice(0, count)
    times = rows["received_ts"].to_numpy().astype(np.int64)
    now = datetime.now(UTC)
    gone = (times - times[0]) / max(int(times[-1] - times[0]), 1)
    told = rows.select(["event_id", "user_id", "item_id", "event_type", "query"]).to_pylist()
    return [
        {
            **{name: value for name, value in row.items() if value is not None},
            "event_ts": (second + share * (now - second)).isoformat(),
            **({"value": float(value)} if value else {}),
        }
        for row, share, value in zip(told, gone, rows["value"].to_pylist(), strict=True)
    ]


def _later(stream: "Stream", batch: pa.Table) -> bool:
    """Whether a batch is of the second day."""
    return bool(pc.min(batch["received_ts"]).as_py() >= stream.spec.start + DAY)


def measure(stream: "Stream", events: int) -> Found:
    """Post an hour's events, close it, and follow it to the answer that has learned it."""
    from pipeline import services
    from pipeline.airflow import Airflow
    from serving.client import RecommendationClient

    airflow, nearline = Airflow(), str(Path(sys.executable).with_name("nearline"))
    airflow.start()
    services.start("api", [nearline, "serve"], env=os.environ)
    try:
        airflow.wait_until_up()
        for dag_id, _ in ON_THE_WAY:
            airflow.unpause(dag_id)
        with RecommendationClient() as client:
            _await(client, "ready", lambda: client.health().status == "ready")
            before, took = client.release().version, _post(client, happens(stream, events))
            closed = time.time()
            runs = _follow(airflow)
            _await(client, "a new release", lambda: client.release().version != before)
            return found(events, took, _spans(airflow, runs), closed, time.time())
    finally:
        services.stop_all()


def _await(client: "RecommendationClient", what: str, come: Any) -> None:
    from serving.errors import ServiceError

    stop = time.monotonic() + _PATIENCE_S
    while True:
        try:
            if come():
                return
        except ServiceError:
            pass
        if time.monotonic() > stop:
            raise StepFailed(f"the API is not as it should be after {_PATIENCE_S} s: {what}")
        time.sleep(0.05)


def _post(client: "RecommendationClient", rows: list[dict[str, Any]]) -> float:
    """Post events, one batch after the other; the seconds that it took."""
    began = time.perf_counter()
    for at in tqdm(range(0, len(rows), _BATCH), desc="post", unit="batch", disable=None):
        batch = rows[at : at + _BATCH]
        answer = client.send_events(events=batch)
        if answer.accepted != len(batch):
            reasons = {each.reason for each in answer.events if each.reason}
            raise StepFailed(f"of {len(batch)} events {answer.accepted} were accepted: {reasons}")
    return time.perf_counter() - began


def _follow(airflow: "Airflow") -> list[tuple[str, str]]:
    """Run the hour through features and fine-tune; the runs, by DAG and id."""
    hour = Window.of_hour(hour_floor(datetime.now(UTC)))
    features, nearline = (dag_id for dag_id, _ in ON_THE_WAY)
    seen = {each["dag_run_id"] for each in airflow.runs(nearline)}
    start, end = hour.start.isoformat(), hour.end.isoformat()
    first = airflow.trigger(features, start=start, end=end)
    second = airflow.triggered(nearline, seen)
    airflow.finish(nearline, second, lambda _: None)
    return [(features, first), (nearline, second)]


def _spans(airflow: "Airflow", runs: list[tuple[str, str]]) -> dict[str, tuple[float, float]]:
    """When the tasks of the way began and ended (seconds since 1970)."""
    by_name = {}
    for dag_id, run_id in runs:
        for task in airflow.tasks(dag_id, run_id):
            if task["start_date"] and task["end_date"]:
                times = (datetime.fromisoformat(task[each]) for each in ("start_date", "end_date"))
                began, ended = (each.timestamp() for each in times)
                by_name[dag_id, task["task_id"]] = (began, ended)
    return {name: by_name[dag_id, name] for dag_id, names in ON_THE_WAY for name in names}


def found(
    events: int,
    posting: float,
    spans: dict[str, tuple[float, float]],
    closed: float,
    answered: float,
) -> Found:
    """The figures, from when tasks ran, the hour was closed and the new release answered."""
    tasks, last = [], closed
    for name, (began, ended) in spans.items():
        tasks.append(Task(name, round(began - last, 1), round(ended - began, 1)))
        last = ended
    return Found(
        events,
        round(events / posting),
        tasks,
        round(answered - closed, 1),
        round(sum(task.waited for task in tasks), 1),
        round(answered - last, 1),
    )


def main(
    events: Annotated[int, typer.Option(min=1, help="Events of an hour.")] = 100_000,
    users: Annotated[int, typer.Option(min=1)] = 100_000,
    items: Annotated[int, typer.Option(min=1)] = 20_000,
    night_minutes: Annotated[float, typer.Option(help="Longest training of the night.")] = 5,
    keep: Annotated[Path | None, typer.Option(help="Folder to work in, and keep.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """From the close of an hour to an answer of the release that learned it, by a real Airflow.

    The day before has 24 times the events; to make its features and its night takes most of the
    time, some twenty minutes by default. A folder that was kept is gone on with.
    Example: python -m benchmarks.hour --events 100000
    """
    from nearline.settings import settings

    end = hour_floor(datetime.now(UTC))
    with workplace(keep) as folder:
        ports = {name: str(free_port()) for name in ("airflow_port", "serve_port")}
        own = {"schedule_start": (end + DAY).isoformat(), "max_train_minutes": str(night_minutes)}
        os.environ.update(environment(folder, **ports, **own))
        settings.cache_clear()
        stream = site(users=users, items=items, events=events, end=end)
        if not (folder / "releases").exists():
            err.print("a day of events becomes features and a night", highlight=False)
            prepare(stream)
        told = measure(stream, events)
    if as_json:
        print_json({"machine": machine(), **asdict(told)})
        return
    rows = [[task.name, f"{task.waited:.1f}", f"{task.ran:.1f}"] for task in told.tasks]
    rows += [["the new release answers", f"{told.swap:.1f}", ""]]
    title = f"{events:,} events, posted at {told.a_second:,.0f} a second: {told.seconds:.0f} s"
    print_table(title, ["task", "waited s", "ran s"], rows)
    err.print(f"of it Airflow: {told.airflow:.1f} s", highlight=False)


if __name__ == "__main__":
    run(main)
