"""`nearline replay`: what is freshness worth, on any data."""

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearline.console import out, print_table, require_writable, write_json
from nearline.errors import BadInput
from nearline.schema import ITEM_SCHEMA, RAW_SCHEMA
from nearline.settings import LARGEST_SEED
from nearline.sources.files import TimeUnit, parse_mapping

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
) -> None:
    """Play events in the order of time, each foreseen before it is learned, for many policies.

    Tells what each clock is worth and costs. Without --events it plays the lake. A run that was cut
    short goes on when it is started again.
    Example: nearline replay --events clicks.csv --from-share 0.7 --step day --json figures.json
    """
    require_writable(json_file, plot)
    require_together(context, periods=periods, events=events, items=items)
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
    if plot is not None:
        from training.replay.plot import plot_report

        plot_report(found, plot)
    show(found)


def require_together(
    context: typer.Context, *, periods: Path | None, events: Path | None, items: Path | None
) -> None:
    """Raise BadInput for options that would change nothing beside the others that were given."""
    sources = {name: context.get_parameter_source(name) for name in _EVENTS}
    given = [name for name, source in sources.items() if source and source.name != "DEFAULT"]
    if periods is not None:
        _refuse(
            given, _EVENTS, "with --periods: it takes --policies, --max-minutes, --seed, --json"
        )
    elif events is None:
        _refuse(given, _FILE, "without --events, which they tell how to read")
    elif items is None:
        _refuse(given, ("items_mapping",), "without --items, which it tells how to read")


def _refuse(given: Sequence[str], refused: Sequence[str], why: str) -> None:
    wrong = [f"--{name.replace('_', '-')}" for name in given if name in refused]
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


def show(found: dict[str, Any]) -> None:
    """The report for people."""
    data, columns = found["data"], ["policy", "events", "NDCG@10", "95 %", "recall@10", "CPU s"]
    rows = [
        [
            row["name"],
            row["events"],
            f"{row['ndcg@10']:.4f}",
            "{:.4f} to {:.4f}".format(*row["interval"]),
            f"{row['recall@10']:.4f}",
            f"{row['compute_seconds']:.1f}",
            "{:+.4f} ({:+.4f} to {:+.4f})".format(
                row["difference"]["ndcg@10"], *row["difference"]["interval"]
            ),
        ]
        for row in sorted(found["policies"], key=lambda row: row["compute_seconds"])
    ]
    against = found["policies"][0]["difference"]["to"]
    title = f"replay of {data['replayed']} of {data['events']} events from {data['start']}"
    print_table(title, [*columns, f"against {against}"], rows)
    if found["forgetting"]:
        show_memory(found["forgetting"])
    show_cut(found)
    if "recommended" in found:
        out.print(f"frontier: {', '.join(found['frontier'])}", highlight=False)
        out.print(f"recommended: {found['recommended']['why']}", highlight=False)


def show_cut(found: dict[str, Any]) -> None:
    """What there was no time for, and how to go on."""
    if found.get("night_cut"):
        out.print("time ran out: the first night was cut short; more --max-minutes learn it whole")
    for name in found["cut"]:
        out.print(f"time ran out: {name} was cut short; start the same command again to go on")


def show_memory(forgetting: list[dict[str, Any]]) -> None:
    """What each model forgot, for people."""
    rows = [
        [
            row["model"],
            f"{row['ndcg@10']:.4f}",
            f"{row['first_night']:.4f}",
            "{:+.4f} to {:+.4f}".format(*row["difference"]),
        ]
        for row in forgetting
    ]
    columns = ["model", "NDCG@10", "first night", "difference, 95 %"]
    print_table("what is left of the time before the replay", columns, rows)


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


def show_periods(found: dict[str, Any]) -> None:
    """The report of periods for people."""
    columns = ("recall@20", "mrr@20", "compute_seconds")
    rows = [
        [row["name"], row["periods"], *(row[name] for name in columns), _ahead(row["difference"])]
        for row in found["policies"]
    ]
    first = found["policies"][0]["difference"]["to"]
    title = f"periods of {found['data']['clicks']} clicks"
    told = ["method", "periods", "recall@20", "MRR@20", "CPU s", f"recall against {first}"]
    print_table(title, told, rows)
    show_cut(found)


def _ahead(difference: dict[str, Any]) -> str | None:
    if "recall@20" not in difference:
        return None
    low, high = difference["recall_interval"]
    return f"{difference['recall@20']:+.4f} ({low:+.4f} to {high:+.4f})"
