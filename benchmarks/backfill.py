"""A backfill of synthetic events through Spark and dbt, against DuckDB alone, at several sizes.

Every step is a process of its own, started anew, as the scheduler's are: time and memory are those
of the process and its descendants. What Spark costs before any event is told by an hour without
events; what an event costs by a line through the sizes, which have their days in common.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.harness import (
    Cost,
    days_before_end,
    environment,
    load_stream,
    machine,
    run,
    run_command,
    run_step,
    workplace,
)
from benchmarks.limit import differing_rows
from nearline.console import JsonFlag, err, print_json, print_table
from nearline.windows import Window

STEPS = ("spark_features", "dbt_marts", "feature_drift")
EMPTY = "spark_features, an hour without events"
LIMIT = "DuckDB alone"
_COMPILE = (
    "import sys; from nearline.windows import Window; from pipeline.dbt import run_dbt; "
    "run_dbt(Window.parse(*sys.argv[1:]), 'compile')"
)
"""Steps go in chunks, so dbt compiled for the last of them: DuckDB alone takes all at once."""


@dataclass(frozen=True)
class Figures:
    """What one step took for `events`."""

    events: int
    step: str
    seconds: float
    cpu_seconds: float
    events_per_second: int
    peak_mib: int
    against_limit: float | None = None


@dataclass(frozen=True)
class Fit:
    """Seconds of a step as `fixed_s` and `us_per_event`, by least squares over the sizes."""

    step: str
    fixed_s: float
    us_per_event: float


def backfill(
    home: Path, events: int, *, users: int, items: int, days: int, feast: bool
) -> list[Figures]:
    """Load a stream, take it through the steps and through DuckDB alone; what each took."""
    err.print(f"{events:,} events", highlight=False)
    load_stream(home, users=users, items=items, events=events, days=days)
    window = days_before_end(days)
    costs = {}
    for step in (*STEPS, *(["materialize"] if feast else [])):
        costs[step] = run_step(home, step, window)
        err.print(f"  {step}: {costs[step].seconds:.1f} s", highlight=False)
    command = [sys.executable, "-m", "benchmarks.limit", str(home)]
    times = window.start.isoformat(), window.end.isoformat()
    run_command([sys.executable, "-c", _COMPILE, *times], environment(home))
    costs[LIMIT] = run_command(command, environment(home))
    costs["Spark and dbt"] = _together(costs["spark_features"], costs["dbt_marts"])
    return [_figures(events, step, cost, costs[LIMIT]) for step, cost in costs.items()]


def empty_hour(home: Path) -> Figures:
    """What Spark takes for an hour without events, in a lake with next to nothing."""
    load_stream(home, users=1, items=10, events=1, days=2)
    window = days_before_end(2)
    run_step(home, "spark_features", Window.trailing(window.end, hours=48))
    return _figures(0, EMPTY, run_step(home, "spark_features", Window.of_hour(window.start)), None)


def fits(figures: list[Figures]) -> list[Fit]:
    """The cost of each step as a line over the sizes; none for a single size."""
    found = []
    for step in dict.fromkeys(each.step for each in figures if each.events):
        points = [each for each in figures if each.step == step]
        if len(points) > 1:
            events, seconds = [p.events for p in points], [p.seconds for p in points]
            slope, fixed = np.polyfit(events, seconds, 1)
            found.append(Fit(step, round(float(fixed), 1), round(float(slope * 1e6), 2)))
    return found


def _together(one: Cost, other: Cost) -> Cost:
    return Cost(
        one.seconds + other.seconds,
        one.cpu_seconds + other.cpu_seconds,
        max(one.peak_mib, other.peak_mib),
    )


def _figures(events: int, step: str, cost: Cost, limit: Cost | None) -> Figures:
    return Figures(
        events,
        step,
        round(cost.seconds, 1),
        round(cost.cpu_seconds, 1),
        round(events / cost.seconds),
        round(cost.peak_mib),
        round(cost.seconds / limit.seconds, 2) if limit else None,
    )


def main(
    sizes: Annotated[list[int], typer.Argument(min=1, help="Numbers of events.")],
    users: Annotated[int, typer.Option(min=1)] = 100_000,
    items: Annotated[int, typer.Option(min=1)] = 20_000,
    days: Annotated[int, typer.Option(min=1)] = 30,
    feast: Annotated[bool, typer.Option("--feast", help="Bring them online as well.")] = False,
    verify: Annotated[
        bool, typer.Option(help="Compare the features of the smallest size, row by row.")
    ] = True,
    keep: Annotated[Path | None, typer.Option(help="Folder to work in, and keep.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """A backfill through Spark and dbt against DuckDB alone, by step and size.

    Example: python -m benchmarks.backfill 200000 1000000 2000000 --days 10
    """
    figures: list[Figures] = []
    differing: dict[str, int] = {}
    with workplace(keep) as folder:
        figures.append(empty_hour(folder / "empty"))
        for size in sorted(sizes):
            home = folder / str(size)
            figures += backfill(home, size, users=users, items=items, days=days, feast=feast)
            if verify and size == min(sizes):
                differing = differing_rows(home)
    lines = fits(figures)
    if as_json:
        print_json(
            {
                "machine": machine(),
                "steps": [vars(each) for each in figures],
                "fits": [vars(each) for each in lines],
                "differing_rows": differing,
            }
        )
        return
    for title, rows in (("backfill", figures), ("fits", lines)):
        if rows:
            print_table(title, list(vars(rows[0])), [list(vars(row).values()) for row in rows])
    print_table("rows that differ", ["feature", "rows"], list(differing.items()))


if __name__ == "__main__":
    run(main)
