"""`nearline features`, `status`, `housekeeping`, `forget`, `doctor`, and the demo."""

import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError
from rich.markup import escape

from nearline.console import JsonFlag, err, out, print_json, print_table
from nearline.errors import BadInput
from nearline.faults import one_line
from nearline.lake import Lake
from nearline.records import Id
from nearline.releases import Drift, ReleaseStore
from nearline.schema import FEATURE_TS
from nearline.windows import HOUR, Window, hour_floor, parse_time
from pipeline import doctor as checks
from pipeline import steps
from pipeline.chunks import Progress
from pipeline.drift import DESCRIBED, DRIFTED, described, latest, told
from pipeline.experiments.harm import close_harmful
from pipeline.housekeeping import tidy_lake, tidy_online
from pipeline.status import COLUMNS, DatasetStatus, dataset_status, hours, release_status


def features(
    start: Annotated[str, typer.Option(help="First hour, as 2026-01-31T13:00Z.")],
    end: Annotated[str, typer.Option(help="The hour after the last.")],
    anew: Annotated[
        bool, typer.Option("--anew", help="Begin anew where an earlier run was ended early.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Turn the arrivals of a window into features that are online: intake, Spark, dbt, Feast.

    Running it again changes nothing. A long window goes in chunks of whole days, and is resumed
    after the last one that was finished. Missing hours right before it are done as well (see
    NEARLINE_CATCHUP_HOURS), and hours right after it that it made stale. Example: nearline features
    --start 2026-01-31T13:00Z --end 2026-01-31T14:00Z
    """
    window = Window.parse(start, end)
    if window.start > datetime.now(UTC):
        raise BadInput(f"{window} has not begun: there is nothing to compute yet")
    if anew:
        Progress(Lake.open(), window).finish()
    counts = {
        "raw_rows": steps.close_hours(window).count,
        "events": steps.spark_features(window).count,
        "feature_rows": steps.dbt_marts(window).count,
        "drifted": steps.feature_drift(window).count,
    }
    online = steps.materialize(window)
    done = {"start": online.window.start.isoformat(), "end": online.window.end.isoformat()}
    _show("features", done | counts | {"online_rows": online.count}, as_json)


def status(
    max_age_hours: Annotated[
        float | None,
        typer.Option(min=0, help="Exit 1 where a dataset is older, has gaps or stale hours."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """How far each dataset and the active release are, what has gaps, and what drifted.

    With --max-age-hours it is a check for monitoring, of the active release's files too. What a
    night makes may be a day older.
    Example: nearline status --max-age-hours 3 --json
    """
    now = datetime.now(UTC)
    found = dataset_status(Lake.open(), now=now)
    release = release_status(ReleaseStore.open(), now=now)
    if as_json:
        print_json([*(each.row() for each in found), *([release] if release else [])])
    else:
        _show_status(found)
        if release is not None:
            _show_release(release)
    if max_age_hours is not None:
        wrong = [text for each in found for text in each.wrong(timedelta(hours=max_age_hours))]
        wrong += [release["damaged"]] if release and release["damaged"] else []
        for text in wrong or ([] if found else ["nothing was ever computed"]):
            err.print(f"[bold red]wrong[/] {text}", highlight=False)
        if wrong or not found:
            raise typer.Exit(1)


def _show_status(found: list[DatasetStatus]) -> None:
    for layer, group in groupby(found, key=lambda each: each.layer):
        print_table(layer, COLUMNS, [each.cells() for each in group])
    for row in latest(Lake.open()):
        if row["state"] == DRIFTED:
            out.print(told(row), style="yellow", highlight=False)


def _show_release(release: dict[str, Any]) -> None:
    until, age, drift = release["complete_until"], release["age_hours"], release["drift"]
    facts = {
        "active": release["version"],
        "damaged": release["damaged"],
        "data until": until and f"{until:.16}Z",
        "age": None if age is None else hours(age * HOUR),
        "night": release["night"],
        "drift": drift and Drift(**drift),
        "vectors online": release["online"],
    }
    print_table("releases", ["", ""], facts.items())


def push(as_json: JsonFlag = False) -> None:
    """Bring the active release's vectors online, of active users and of all items.

    Does nothing where they are there. The scheduler does it at the end of each run; by hand it
    belongs after `--promote` and after a rollback. Example: nearline push
    """
    rows = steps.push_active()
    _show("push", {"active": ReleaseStore.open().active(), "rows": rows}, as_json)


def housekeeping(
    end: Annotated[
        str | None, typer.Option(help="As of this hour (default: the hour that runs).")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compact old days, remove what is older than is kept, forget users, close harmful arms.

    Waits for steps that write the same now. Example: nearline housekeeping --json
    """
    now = parse_time(end) if end else datetime.now(UTC)
    window = Window.trailing(hour_floor(now), hours=24)
    harmful = {"closed_arms": close_harmful(window.end)}
    lake = tidy_lake(window)
    online = {f"online_{name}": count for name, count in tidy_online(window).items()}
    _show("housekeeping", harmful | lake | online, as_json)


def forget(
    users: Annotated[list[str] | None, typer.Argument(metavar="[USER]...")] = None,
    file: Annotated[
        Path | None, typer.Option(help="A text file of more users, one id a line.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Forget users: remove all that they did before now, everywhere; late events stay out.

    Also carries out what the API was asked for; without users, only that. Any number of users costs
    one pass over all files. It waits for steps that write now; ended early, it goes on when it is
    run again. Exit 1 where nothing was found of a user. What was removed is told by receipts in
    HOME/receipts, without the ids. Example: nearline forget 796 --json
    """
    from pipeline.forget import forget as carry_out

    requests, receipts = carry_out(_ids(users or [], file))
    asked = {request: escape(user) for user, request in requests.items()}
    if as_json:
        print_json([asdict(receipt) for receipt in receipts])
    else:
        rows = [
            [asked.get(receipt.request), receipt.request, place, each.parts, each.rows]
            for receipt in receipts
            for place, each in receipt.removed.items()
        ]
        print_table("removed", ["user", "request", "place", "parts", "rows"], rows)
    unknown = [r.request for r in receipts if r.request in asked and not r.removed]
    for request in unknown:
        err.print(f"nothing was found of user {asked[request]}", highlight=False)
    if unknown:
        raise typer.Exit(1)


def _ids(users: list[str], file: Path | None) -> list[str]:
    """The ids of an argument list and a file, each once. Raises BadInput for what is no id."""
    found = list(users)
    if file is not None:
        try:
            found += [line.strip() for line in file.read_text().splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{file} cannot be read: {error}") from error
    try:
        return [TypeAdapter(Id).validate_python(user) for user in dict.fromkeys(found)]
    except ValidationError as error:
        raise BadInput(
            f"{error.errors()[0]['input']!r} is no user id: {one_line(error)}"
        ) from error


def _show(title: str, figures: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(figures)
    else:
        print_table(title, list(figures), [list(figures.values())])


def drift(as_json: JsonFlag = False) -> None:
    """How the features of the last day compare with the seven days before, the farthest first.

    Example: nearline drift --json
    """
    found = latest(Lake.open())
    if as_json:
        print_json(found)
        return
    rows = [[*map(described(row).get, DESCRIBED)] for row in found]
    known = f"{found[0][FEATURE_TS]:%Y-%m-%dT%H:%M}Z" if found else "nothing compared yet"
    print_table(f"drift, {known}", DESCRIBED, rows)


def doctor(as_json: JsonFlag = False) -> None:
    """Check what this machine has of what Nearline needs; exit 1 where something lacks.

    Example: nearline doctor --json
    """
    findings = checks.examine()
    if as_json:
        print_json([vars(finding) for finding in findings])
    else:
        rows = [[f.check, "ok" if f.ok else "missing", f.detail] for f in findings]
        print_table("doctor", ["check", "state", "detail"], rows)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def demo(
    stay: Annotated[bool, typer.Option("--stay", help="Leave all running, with traffic.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Play MovieLens-100K once round the ring, through a real scheduler, and report.

    Takes minutes and needs an empty NEARLINE_HOME, or one of an earlier demo, which it replaces.
    Example: NEARLINE_HOME=var/demo nearline demo --stay
    """
    from pipeline.demo.story import run_demo

    report = run_demo(stay=stay)
    if as_json:
        print_json(asdict(report))
    else:
        report.show()


def down(as_json: JsonFlag = False) -> None:
    """End everything that `nearline demo` left running.

    Example: NEARLINE_HOME=var/demo nearline down
    """
    from pipeline.services import stop_all

    ended = stop_all()
    if as_json:
        print_json(ended)
    else:
        out.print(f"ended: {', '.join(ended)}" if ended else "nothing was running")


def airflow(context: typer.Context) -> None:
    """Airflow's own command, speaking to the private Airflow of NEARLINE_HOME.

    Example: nearline airflow backfill create --dag-id features_hourly --from-date
    2026-01-30T00:00Z --to-date 2026-01-31T00:00Z
    """
    from pipeline.airflow import environment

    module = "pipeline.airflow_turns" if context.args[:1] == ["backfill"] else "airflow"
    command = [sys.executable, "-m", module, *context.args]
    raise typer.Exit(subprocess.run(command, env=environment()).returncode)


def traffic() -> None:
    """Post what was held back of a dataset to the API, each event when its time comes.

    Begins with the running hour: what is due already is posted at once.
    Example: nearline load movielens-100k --speed 24 && nearline traffic
    """
    from pipeline.demo.traffic import trickle
    from serving.client import RecommendationClient

    with RecommendationClient() as client:
        trickle(client, since=hour_floor(datetime.now(UTC)))
