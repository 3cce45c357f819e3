"""One more hour after a short history, and after a long one: does history make the hour dearer?

Both lakes get as many events a day, by as many users over as many items. In each lake the last
hours are computed one by one, step by step, the lakes in turn, each step in a process that is warm
(its imports done, its Spark running): what starting costs would hide what history costs. The first
hour warms up and does not count.
"""

import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from benchmarks.harness import (
    days_before_end,
    environment,
    load_stream,
    machine,
    run,
    run_nearline,
    workplace,
)
from nearline.console import JsonFlag, err, print_json, print_table
from nearline.windows import HOUR, Window

STEPS = ("spark_features", "dbt_marts", "materialize", "feature_drift")
LIMIT = 1.2


@dataclass(frozen=True)
class Figures:
    """Medians over the hours, in wall clock and in processor time, and their ratios."""

    step: str
    short_s: float
    long_s: float
    ratio: float
    short_cpu_s: float
    long_cpu_s: float
    cpu_ratio: float


Taken = dict[str, tuple[float, float]]
"""Step → wall clock and processor seconds."""


def build(home: Path, *, users: int, items: int, a_day: int, days: int, hours: int) -> None:
    """A lake with features of `days` days but for the last `hours`, kept in order as every day.

    One that is there already is taken.
    """
    done = home / "built"
    if done.exists():
        return
    err.print(f"building {days} days in {home}")
    load_stream(home, users=users, items=items, events=a_day * days, days=days)
    window = days_before_end(days)
    history = Window(window.start, window.end - hours * HOUR)
    run_nearline(
        home, "features", "--start", history.start.isoformat(), "--end", history.end.isoformat()
    )
    run_nearline(home, "housekeeping", "--end", history.end.isoformat())
    done.touch()


def start(env: dict[str, str]) -> None:
    """Make this process one that computes hours of one lake, with a Spark that stays."""
    os.environ.clear()
    os.environ.update(env)
    from nearline.settings import settings
    from spark_jobs.session import start_session

    start_session(settings())


def one_hour(window: Window) -> Taken:
    """Compute an hour, step by step."""
    from pipeline import steps

    return {name: _taken(getattr(steps, name), window) for name in STEPS}


def _taken(step: Any, window: Window) -> tuple[float, float]:
    cpu, began = _cpu_seconds(), time.perf_counter()
    step(window)
    return time.perf_counter() - began, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    me = psutil.Process()
    found = [process.cpu_times() for process in [me, *me.children(recursive=True)]]
    return sum(times.user + times.system for times in found)


def measure(homes: list[Path], windows: list[Window]) -> list[list[Taken]]:
    """What each of the hours takes, for each home: the homes in turn, first one, then the other."""
    taken: list[list[Taken]] = [[] for _ in homes]
    with ExitStack() as stack:
        pools = [
            stack.enter_context(
                ProcessPoolExecutor(1, get_context("spawn"), start, (environment(home),))
            )
            for home in homes
        ]
        for number, window in enumerate(windows):
            order = range(len(homes)) if number % 2 else reversed(range(len(homes)))
            for which in order:
                taken[which].append(pools[which].submit(one_hour, window).result())
                err.print(f"{homes[which].name} {window}", highlight=False)
    return [each[1:] for each in taken]


def compare(short: list[Taken], long: list[Taken]) -> list[Figures]:
    """Medians and ratios by step, and of the hour as a whole."""
    for hour in (*short, *long):
        hour["all"] = tuple(map(sum, zip(*hour.values(), strict=True)))  # type: ignore[assignment]
    return [_figures(step, short, long) for step in (*STEPS, "all")]


def _figures(step: str, short: list[Taken], long: list[Taken]) -> Figures:
    (short_s, short_cpu_s), (long_s, long_cpu_s) = (
        [statistics.median(hour[step][kind] for hour in hours) for kind in (0, 1)]
        for hours in (short, long)
    )
    return Figures(
        step,
        short_s=round(short_s, 3),
        long_s=round(long_s, 3),
        ratio=round(long_s / short_s, 3),
        short_cpu_s=round(short_cpu_s, 3),
        long_cpu_s=round(long_cpu_s, 3),
        cpu_ratio=round(long_cpu_s / short_cpu_s, 3),
    )


def main(
    short: Annotated[int, typer.Option(min=2, help="Days of the short history.")] = 30,
    long: Annotated[int, typer.Option(min=2, help="Days of the long history.")] = 360,
    users: Annotated[int, typer.Option(min=1)] = 2_000,
    items: Annotated[int, typer.Option(min=1)] = 2_000,
    a_day: Annotated[int, typer.Option(min=1, help="Events a day.")] = 5_000,
    hours: Annotated[int, typer.Option(min=2, help="Hours measured, one of them to warm up.")] = 7,
    keep: Annotated[
        Path | None, typer.Option(help="Folder to build the lakes in, and keep them.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """One more hour after 30 days of history against after 360 days, by step.

    Lakes that are kept have had their last hours computed: measure those again or build anew.
    Example: python -m benchmarks.history --a-day 5000 --hours 7
    """
    with workplace(keep) as folder:
        homes = [folder / f"{days}-days" for days in (short, long)]
        for home, days in zip(homes, (short, long), strict=True):
            build(home, users=users, items=items, a_day=a_day, days=days, hours=hours)
        last = days_before_end(short)
        windows = [Window.of_hour(last.end - n * HOUR) for n in range(hours, 0, -1)]
        figures = compare(*measure(homes, windows))
    rows = [vars(each) for each in figures]
    if as_json:
        print_json(
            {
                "machine": machine(),
                "short_days": short,
                "long_days": long,
                "hours": hours - 1,
                "steps": rows,
            }
        )
    else:
        print_table(
            f"an hour after {short} and after {long} days",
            list(rows[0]),
            [list(row.values()) for row in rows],
        )
    if figures[-1].ratio > LIMIT:
        err.print(f"the hour's ratio {figures[-1].ratio} is over {LIMIT}")
        sys.exit(1)


if __name__ == "__main__":
    run(main)
