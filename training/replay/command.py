"""`nearline replay`: what is freshness worth, on any data."""

import json
import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearline.console import require_writable, write_json
from nearline.errors import BadInput
from nearline.schema import ITEM_SCHEMA, RAW_SCHEMA
from nearline.settings import LARGEST_SEED
from nearline.sources.files import TimeUnit, parse_mapping
from training.replay.show import show_events, show_periods

if TYPE_CHECKING:
    from training.replay.data import Source

POLICIES = ",".join(
    [
        *("frozen/never", "nightly/never", "hourly/never", "live/never", "live/never/compressed"),
        *("live/daily-plain", "live/daily-replay", "live/daily-distil"),
        *("live/hourly-plain", "live/hourly-replay", "live/hourly-distil"),
        *("live/weekly", "live/weekly+daily-replay"),
        *("popular", "popular_30d", "popular_7d", "item_to_item"),
    ]
)


class Step(StrEnum):
    """How often a fine-tune without a cadence of its own ticks."""

    HOUR = "hour"
    DAY = "day"


_FILE = ("mapping", "event_type", "time_unit", "items", "items_mapping")
"""What tells how --events are to be read."""

_EVENTS = ("events", *_FILE, "from_share", "step", "workers", "plot")
"""What --periods has no use for."""


def replay(
    context: typer.Context,
    events: Annotated[
        Path | None,
        typer.Option(help="CSV, JSON lines, parquet, a MovieLens folder, or movielens-100k."),
    ] = None,
    periods: Annotated[
        Path | None, typer.Option(help="Lines `period session item` instead; may be .xz.")
    ] = None,
    items: Annotated[Path | None, typer.Option(help="The catalogue of --events.")] = None,
    mapping: Annotated[
        list[str] | None, typer.Option("--mapping", "-m", help="NAME=COLUMN of --events.")
    ] = None,
    items_mapping: Annotated[
        list[str] | None, typer.Option("--items-mapping", help="NAME=COLUMN of --items.")
    ] = None,
    event_type: Annotated[str | None, typer.Option(help="When --events has no type.")] = None,
    time_unit: Annotated[TimeUnit, typer.Option(help="How --events writes times.")] = "iso",
    from_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the events before the replay.")
    ] = 0.7,
    step: Annotated[Step, typer.Option(help="Cadence of a fine-tune without one.")] = Step.HOUR,
    policies: Annotated[
        str | None,
        typer.Option(
            help="STATE/MODEL, STATE/MODEL/ENCODER, baselines; of --periods: methods. With commas."
        ),
    ] = None,
    max_minutes: Annotated[float, typer.Option(min=0.0, help="Stops after about this.")] = 60.0,
    workers: Annotated[
        int, typer.Option(min=0, help="Model clocks side by side; 0: one for each core.")
    ] = 0,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of every random choice.")
    ] = 17,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="OUT", help="Write the figures there.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw them as a PNG there.")] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Draw --plot from what --json wrote; nothing is played.")
    ] = None,
) -> None:
    """Play events in the order of time, each foreseen before it is learned, for many policies.

    Tells what each clock is worth and costs. Without --events it plays the lake. A run that was cut
    short goes on when it is started again.
    Example: nearline replay --events clicks.csv --from-share 0.7 --step day --json figures.json
    """
    require_writable(json_file, plot)
    require_together(context, periods=periods, events=events, items=items, figures=figures)
    if figures is not None:
        draw(read_figures(figures), plot)
        return
    if periods is not None:
        found = learn_periods(periods, policies, max_minutes=max_minutes, seed=seed)
        write_json(found, json_file)
        show_periods(found)
        return
    from training.replay.data import Source

    names = parse_mapping(mapping or [], RAW_SCHEMA.names)
    of_items = parse_mapping(items_mapping or [], ITEM_SCHEMA.names)
    source = Source(events, items, names, of_items, event_type, time_unit)
    found = play_events(
        source,
        from_share=from_share,
        step=step,
        policies=policies or POLICIES,
        max_minutes=max_minutes,
        workers=workers or len(os.sched_getaffinity(0)),
        seed=seed,
    )
    write_json(found, json_file)
    draw(found, plot)
    show_events(found)


def draw(found: dict[str, Any], plot: Path | None) -> None:
    """The report as a picture, where one is asked for."""
    if plot is not None:
        from training.replay.plot import plot_report

        plot_report(found, plot)


def read_figures(path: Path) -> dict[str, Any]:
    """What `--json` wrote of a replay of events. Raises BadInput for any other file."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path} as JSON: {error}") from error
    if not isinstance(found, dict) or not {"policies", "compared", "left_out"} <= found.keys():
        raise BadInput(f"{path} is not what `nearline replay --events … --json` writes")
    return found


def require_together(
    context: typer.Context,
    *,
    periods: Path | None,
    events: Path | None,
    items: Path | None,
    figures: Path | None,
) -> None:
    """Raise BadInput for options that would change nothing beside the others that were given."""
    given = {}
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if source and source.name != "DEFAULT":
            given[option.name or ""] = option.opts[0]
    if figures is not None:
        others = given.keys() - {"figures", "plot"}
        _refuse(given, sorted(others), "with --figures, of which only --plot is drawn")
        if "plot" not in given:
            raise BadInput("--figures are drawn as a picture: name it with --plot")
    elif periods is not None:
        _refuse(
            given, _EVENTS, "with --periods: it takes --policies, --max-minutes, --seed, --json"
        )
    elif events is None:
        _refuse(given, _FILE, "without --events, which they tell how to read")
    elif items is None:
        _refuse(given, ("items_mapping",), "without --items, which it tells how to read")


def _refuse(given: Mapping[str, str], refused: Sequence[str], why: str) -> None:
    wrong = [given[name] for name in refused if name in given]
    if wrong:
        raise BadInput(f"{', '.join(wrong)} cannot be used {why}")


def play_events(
    source: "Source",
    *,
    from_share: float,
    step: str,
    policies: str,
    max_minutes: float,
    workers: int,
    seed: int,
) -> dict[str, Any]:
    """The report of a replay of events; its finished days are kept under `HOME/replay`."""
    from nearline.domains import load_domain
    from nearline.settings import settings
    from training.replay.clocks import parse_policies
    from training.replay.report import report
    from training.replay.run import replay as run
    from training.replay.timeline import make_timeline

    asked = parse_policies(policies, step=step)
    domain = load_domain(settings().domain)
    timeline = make_timeline(*source.read(), domain, from_share)
    played = run(
        timeline,
        asked,
        seed=seed,
        max_minutes=max_minutes,
        workers=workers,
        folder=settings().home / "replay",
    )
    return {"from_share": from_share, "step": step} | report(played, seed=seed)


def learn_periods(
    path: Path, methods: str | None, *, max_minutes: float, seed: int
) -> dict[str, Any]:
    """The report of a file of periods; finished ones are kept under `HOME/replay`.

    Without `methods`, of all there are.
    """
    from nearline.settings import settings
    from training.publishing import code_version
    from training.recipe import load_recipe
    from training.replay import periods
    from training.replay.store import digest, machine

    asked = [name.strip() for name in (methods or ",".join(periods.METHODS)).split(",")]
    unknown = [name for name in asked if name not in periods.METHODS]
    if unknown:
        raise BadInput(f"no method {unknown[0]!r}: use {', '.join(periods.METHODS)}")
    sessions, recipe = periods.read_periods(path), load_recipe(settings().model_size)
    columns = (sessions.periods, sessions.sessions, sessions.items)
    told = [recipe.model_dump_json(), seed, machine(), code_version()]
    return periods.play_periods(
        sessions,
        asked,
        recipe,
        seed=seed,
        max_minutes=max_minutes,
        folder=settings().home / "replay" / digest(*columns, *told),
    )
