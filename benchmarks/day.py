"""A day of MovieLens-100K by a real Airflow, with all that goes wrong on one: what became of it?

Yesterday's 24 hours are played one after the other, as fast as they are computed: each arrives,
`features_hourly` runs, and `nearline_hourly` by its asset. Beside them
- the night runs at half past three;
- the events of an hour come three hours late, and the hour is run again;
- somebody puts a release live whose fine-tunes are far too eager: the gate refuses the next hour's;
- that release is rolled back, and the next hour learns both.
What its hours changed makes them ask for a night too, which may go live while an hour is learned:
that one is redone on the new line.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.harness import environment, free_port, machine, run, workplace
from nearline.console import JsonFlag, err, print_json, print_table
from nearline.windows import DAY, HOUR, Window, midnight

if TYPE_CHECKING:
    from pipeline.airflow import Airflow

LATE, CAME = 9, 12
"""The events of the hour LATE come when the hour CAME is over."""

NIGHT_AFTER = 2
"""The night runs when this hour is over."""

EAGER_BEFORE = 17
"""Before this hour a release goes live that must not; after it, it is rolled back."""

_EAGER_RATE = 0.1
_HOLD_BACK = 0.15


@dataclass(frozen=True)
class Turn:
    """A run of a DAG, in the order of runs: what it was about, and what came of it."""

    dag: str
    what: str
    state: str
    seconds: float
    came: str = ""


@dataclass
class Day:
    """The runs, and what is not as it should be in the end."""

    turns: list[Turn] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def prepare(start: datetime) -> None:
    """All that was before the day, as features and a night that is live."""
    from nearline.settings import settings
    from nearline.sources.landing import load_with_traffic
    from nearline.sources.movielens import fetch_movielens_100k, read_movielens
    from pipeline import steps
    from pipeline.demo.story import SPEED

    films = read_movielens(fetch_movielens_100k(settings().home / "cache"))
    history = load_with_traffic(films, start, _HOLD_BACK, SPEED).window
    assert history is not None, "MovieLens-100K is not empty"
    for name in ("close_hours", "spark_features", "dbt_marts", "materialize"):
        getattr(steps, name)(history)
    night = steps.train(Window.trailing(start, hours=24))
    steps.push(night)
    steps.promote(night)


def play(day: Window) -> Day:
    """Play the day, and look at what it left behind."""
    from pipeline import services, steps
    from pipeline.airflow import Airflow
    from pipeline.demo.traffic import deliver

    airflow, found = Airflow(), Day()
    airflow.start()
    try:
        airflow.wait_until_up()
        airflow.unpause("nearline_hourly")
        for number, hour in enumerate(map(Window.of_hour, day.hours())):
            if number == EAGER_BEFORE:
                put_eager_live()
            if number != LATE:
                deliver(hour)
            _turn(airflow, found, f"{hour.start:%H}:00", hour)
            if number == NIGHT_AFTER:
                last = Window.trailing(hour.end, hours=24)
                _run(airflow, found, "train_nightly", "the night", last)
            if number == CAME:
                late = Window.of_hour(day.start + LATE * HOUR)
                deliver(late)
                _turn(airflow, found, f"{late.start:%H}:00, late", late)
            if number == EAGER_BEFORE:
                roll_back(found)
        for run_id in _runs(airflow, "train_nightly"):
            if run_id.startswith("asset_triggered"):
                _finished(airflow, found, "train_nightly", "a night that was asked for", run_id)
    finally:
        services.stop_all()
    steps.item_neighbours(Window.trailing(day.end, hours=24))  # the next night's: it was late too
    found.wrong = list(_wrong(found, day))
    return found


def put_eager_live() -> None:
    """The active release again, but its hours are learned at a rate that forgets all else."""
    from nearline.releases import ReleaseStore
    from training.bundle import read_bundle, write_bundle

    store = ReleaseStore.open()
    active = store.active()
    assert active is not None, "the night is live"
    release = store.load(active)
    bundle = read_bundle(release)
    learning = bundle.learning.model_copy(update={"warm_learning_rate": _EAGER_RATE})
    with store.stage() as folder:
        write_bundle(folder, replace(bundle, learning=learning))
        told = {"kind": "hourly", "parent": active, "base": release.manifest.base or active}
        store.promote(store.publish(folder, release.manifest.model_copy(update=told)))


def roll_back(found: Day) -> None:
    """What an operator does: `nearline releases rollback`."""
    from nearline.releases import ReleaseStore

    store = ReleaseStore.open()
    before, now = store.active(), store.rollback()
    found.turns.append(Turn("", f"rollback of {before}", "", 0.0, now))


def _turn(airflow: "Airflow", found: Day, what: str, hour: Window) -> None:
    """An hour through features and, by their asset, the fine-tune; again where it was overtaken."""
    seen = _runs(airflow, "nearline_hourly")
    _run(airflow, found, "features_hourly", what, hour)
    run_id = airflow.triggered("nearline_hourly", seen)
    _finished(airflow, found, "nearline_hourly", what, run_id)
    for again in _runs(airflow, "nearline_hourly") - seen - {run_id}:
        _finished(airflow, found, "nearline_hourly", f"{what}, overtaken", again)


def _runs(airflow: "Airflow", dag_id: str) -> set[str]:
    return {str(each["dag_run_id"]) for each in airflow.runs(dag_id)}


def _run(airflow: "Airflow", found: Day, dag_id: str, what: str, window: Window) -> None:
    start, end = window.start.isoformat(), window.end.isoformat()
    run_id = airflow.trigger(dag_id, start=start, end=end)
    _finished(airflow, found, dag_id, what, run_id)


def _finished(airflow: "Airflow", found: Day, dag_id: str, what: str, run_id: str) -> None:
    from nearline.releases import ReleaseStore

    before = {manifest.version for manifest in ReleaseStore.open().manifests()}
    ran = airflow.finish(dag_id, run_id, lambda _: None)
    began, ended = (datetime.fromisoformat(ran[each]) for each in ("start_date", "end_date"))
    seconds = round((ended - began).total_seconds(), 1)
    came = ""
    for manifest in ReleaseStore.open().manifests():
        if manifest.version not in before:
            came = manifest.version + ("" if manifest.promoted else f": {manifest.reasons[0]}")
    found.turns.append(Turn(dag_id, what, ran["state"], seconds, came))
    err.print(found.turns[-1], highlight=False)


def _wrong(found: Day, day: Window) -> Iterator[str]:
    """What would tell an operator, in the end, that the day was none like others."""
    from nearline.lake import EVENTS, Lake
    from nearline.pushed import pushed
    from nearline.releases import ReleaseStore
    from pipeline.demo.traffic import held_back
    from pipeline.status import dataset_status

    store, lake = ReleaseStore.open(), Lake.open()
    refused = [each.version for each in store.manifests() if not each.promoted]
    if len(refused) != 1:
        yield f"the gate refused {refused}, where one release was to be refused"
    active = store.active()
    assert active is not None, "the night was live"
    if store.load(active).manifest.window_end != day.end:
        yield f"{active} is live, which has not learned the day to its end"
    if pushed() != active:
        yield f"{active} is live, but vectors of {pushed()} are online"
    stored = sum(each.rows for each in lake.manifests(EVENTS, day).values())
    sent = held_back(day.start, day.end).num_rows
    if stored != sent:
        yield f"{sent} events were sent, {stored} are there"
    for each in dataset_status(lake, now=day.end):
        yield from each.wrong(DAY)
    yield from (f"{each}" for each in found.turns if each.dag and each.state != "success")


def main(
    keep: Annotated[Path | None, typer.Option(help="Folder to work in, and keep.")] = None,
    as_json: JsonFlag = False,
) -> None:
    from nearline.settings import settings

    today = midnight(datetime.now(UTC).date())
    day = Window(today - DAY, today)
    with workplace(keep) as folder:
        own = {"schedule_start": (day.end + 2 * DAY).isoformat(), "domain": "entertainment"}
        os.environ.update(environment(folder, airflow_port=str(free_port()), **own))
        settings.cache_clear()
        if not (folder / "releases").exists():
            err.print("what was before becomes features and a night", highlight=False)
            prepare(day.start)
        found = play(day)
    if as_json:
        print_json({"machine": machine(), **asdict(found)})
    else:
        rows: list[list[Any]] = [list(asdict(turn).values()) for turn in found.turns]
        print_table(f"{day}", ["DAG", "what", "state", "seconds", "what came of it"], rows)
    for told in found.wrong:
        err.print(f"[red]{told}[/]", highlight=False)
    if found.wrong:
        sys.exit(1)


main.__doc__ = f"""{__doc__}
Takes half an hour; exits with 1 where something is not as on any other day in the end.
Example: python -m benchmarks.day --keep DIR
"""

if __name__ == "__main__":
    run(main)
