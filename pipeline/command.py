"""`nearline features`, `nearline status` and `nearline doctor`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from nearline.console import JsonFlag, print_json, print_table
from nearline.lake import Lake
from nearline.windows import Window
from pipeline import doctor as checks
from pipeline import steps
from pipeline.status import dataset_status


def features(
    start: Annotated[str, typer.Option(help="First hour, as 2026-01-31T13:00Z.")],
    end: Annotated[str, typer.Option(help="The hour after the last.")],
    as_json: JsonFlag = False,
) -> None:
    """Compute the features of a window: Spark, then dbt. Running it again changes nothing.

    Example: nearline features --start 2026-01-31T13:00Z --end 2026-01-31T14:00Z
    """
    window = Window.parse(start, end)
    figures = {
        "start": window.start.isoformat(),
        "end": window.end.isoformat(),
        "events": steps.spark_features(window),
        "feature_rows": steps.dbt_marts(window),
    }
    if as_json:
        print_json(figures)
    else:
        print_table("features", list(figures), [list(figures.values())])


def status(as_json: JsonFlag = False) -> None:
    """How far each dataset is: newest complete hour, its age, gaps.

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


def doctor(as_json: JsonFlag = False) -> None:
    """Check what this machine has of what Nearline needs; exit 1 where something lacks."""
    findings = checks.examine()
    if as_json:
        print_json([vars(finding) for finding in findings])
    else:
        rows = [[f.check, "ok" if f.ok else "missing", f.detail] for f in findings]
        print_table("doctor", ["check", "state", "detail"], rows)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
