"""`nearline experiments`: what runs, and what became of it."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from nearline.closed_arms import ClosedArms
from nearline.console import JsonFlag, err, print_json, print_table
from nearline.domains import load_domain
from nearline.experiments import Assigned, Experiments
from nearline.lake import Lake
from nearline.settings import settings
from nearline.windows import Window
from pipeline.experiments.intervals import Interval
from pipeline.experiments.results import Results, compute

app = typer.Typer(
    help="What the file of experiments tells to run, and what became of it.",
    no_args_is_help=True,
)


@app.command("list", epilog="nearline experiments list")
def list_experiments(as_json: JsonFlag = False) -> None:
    """The experiments of the file, with their arms, and the arms that were closed."""
    found, closed = Experiments.open().by_name, ClosedArms.open().read()
    if as_json:
        told = {name: each.model_dump(mode="json") for name, each in found.items()}
        shut = [each.model_dump(mode="json") for each in closed.values()]
        print_json({"experiments": told, "closed": shut})
        return
    rows = [
        (
            name,
            ", ".join(sorted(each.surfaces)) or "all",
            arm,
            f"{of.share:.0%}",
            of.release or "the active one",
            ", ".join(f"{k}={v}" for k, v in of.settings.model_dump(exclude_defaults=True).items()),
        )
        for name, each in found.items()
        for arm, of in each.arms.items()
    ]
    columns = ["experiment", "surfaces", "arm", "share", "release", "settings"]
    print_table("experiments", columns, rows)
    for each in closed.values():
        err.print(
            f"[bold red]closed[/] {each.arm} of {each.experiment} since "
            f"{each.closed_ts:%Y-%m-%d %H:%M}: {each.reason}",
            highlight=False,
        )


@app.command("reopen", epilog="nearline experiments reopen home-cap wide")
def reopen(experiment: str, arm: str) -> None:
    """Open an arm that a guardrail closed; running servers follow within seconds."""
    was = ClosedArms.open().reopen(Assigned(experiment, arm), now=datetime.now(UTC))
    err.print(f"{arm} of {experiment} is open again; it was closed: {was.reason}", highlight=False)


@app.command(
    "results",
    epilog="nearline experiments results cap --start 2026-01-01T00:00Z --end 2026-01-08T00:00Z",
)
def results(
    name: str,
    start: Annotated[str, typer.Option(help="First hour, as 2026-01-31T13:00Z.")],
    end: Annotated[str, typer.Option(help="The hour after the last.")],
    as_json: JsonFlag = False,
) -> None:
    """How often an arm's lists were clicked, and led to the funnel's goal, beside the control's.

    All at 95 %, counted over users. A lift whose interval holds 0 tells nothing yet.
    """
    running = Experiments.open().by_name.get(name)
    domain = load_domain(settings().domain)
    found = compute(Lake.open(), name, Window.parse(start, end), domain, running)
    if as_json:
        print_json(asdict(found))
    else:
        _show(found)


def _show(found: Results) -> None:
    rows = [
        (
            arm.arm,
            arm.users,
            arm.lists,
            _percent(arm.clicked),
            _percent(arm.clicked_lift, sign=True),
            _percent(arm.converted),
            _percent(arm.converted_lift, sign=True),
        )
        for arm in found.arms
    ]
    columns = ["arm", "users", "lists", "clicked", "lift", "converted", "lift"]
    print_table(f"{found.experiment}, {found.window}", columns, rows)
    for arm in found.arms:
        if not arm.dealt_well:
            err.print(
                f"[bold red]wrong[/] {arm.arm} has another share of the users than was set: do not "
                "trust these figures before you know why",
                highlight=False,
            )
    if found.moved:
        err.print(f"{found.moved} users changed arms, and are left out", highlight=False)


def _percent(of: Interval | None, *, sign: bool = False) -> str | None:
    if of is None:
        return None
    value, low, high = (f"{100 * each:{'+' if sign else ''}.2f}" for each in vars(of).values())
    return f"{value} ({low} to {high})"
