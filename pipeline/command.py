"""`nearline features`, `status`, `doctor`, and the demo: `demo`, `traffic`, `down`."""

import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from nearline.console import JsonFlag, out, print_json, print_table
from nearline.errors import BadInput
from nearline.lake import Lake
from nearline.schema import FEATURE_TS
from nearline.windows import Window, hour_floor
from pipeline import doctor as checks
from pipeline import steps
from pipeline.drift import DESCRIBED, DRIFTED, described, latest, told
from pipeline.status import dataset_status


def features(
    start: Annotated[str, typer.Option(help="First hour, as 2026-01-31T13:00Z.")],
    end: Annotated[str, typer.Option(help="The hour after the last.")],
    as_json: JsonFlag = False,
) -> None:
    """Turn the arrivals of a window into features that are online: intake, Spark, dbt, Feast.

    Running it again changes nothing. Example: nearline features --start 2026-01-31T13:00Z --end
    2026-01-31T14:00Z
    """
    window = Window.parse(start, end)
    if window.start > datetime.now(UTC):
        raise BadInput(f"{window} has not begun: there is nothing to compute yet")
    figures = {
        "start": window.start.isoformat(),
        "end": window.end.isoformat(),
        "raw_rows": steps.close_hours(window),
        "events": steps.spark_features(window),
        "feature_rows": steps.dbt_marts(window),
        "online_rows": steps.materialize(window),
        "drifted": steps.feature_drift(window),
    }
    if as_json:
        print_json(figures)
    else:
        print_table("features", list(figures), [list(figures.values())])


def status(as_json: JsonFlag = False) -> None:
    """How far each dataset is: newest complete hour, its age, gaps; and which features drifted.

    Example: nearline status --json
    """
    found = dataset_status(Lake.open(), now=datetime.now(UTC))
    rows = [
        {
            "dataset": s.dataset,
            "complete_from": s.complete_from.isoformat(),
            "complete_until": s.complete_until.isoformat(),
            "age_hours": round(s.age.total_seconds() / 3600, 2),
            "rows": s.rows,
            "gaps": [str(gap) for gap in s.gaps],
        }
        for s in found
    ]
    if as_json:
        print_json(rows)
        return
    columns = ["dataset", "from", "until", "age (h)", "rows", "gaps"]
    cells = [[", ".join(v) if isinstance(v, list) else v for v in row.values()] for row in rows]
    print_table("datasets", columns, cells)
    for row in latest(Lake.open()):
        if row["state"] == DRIFTED:
            out.print(told(row), style="yellow", highlight=False)


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

    command = [sys.executable, "-m", "airflow", *context.args]
    raise typer.Exit(subprocess.run(command, env=environment()).returncode)


def traffic() -> None:
    """Post what was held back of a dataset to the API, each event when its time comes.

    Begins with the running hour: what is due already is posted at once.
    Example: nearline load movielens-100k --speed 24 && nearline traffic
    """
    from pipeline.demo.traffic import trickle
    from serving.client import Client

    with Client() as client:
        trickle(client, since=hour_floor(datetime.now(UTC)))
