"""`nearline load`: datasets and files into the lake."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from nearline.console import JsonFlag, print_json, print_table
from nearline.domains import load_domain
from nearline.intake.raw import merge_raw
from nearline.lake import RAW, Lake
from nearline.schema import ITEM_SCHEMA, RAW_SCHEMA
from nearline.settings import settings
from nearline.sources.dataset import Dataset, upsert_items
from nearline.sources.files import TimeUnit, parse_mapping, read_events, read_items
from nearline.sources.landing import Loaded, load, load_with_traffic
from nearline.sources.movielens import fetch_movielens_100k, read_movielens
from nearline.sources.synthetic import Stream, StreamSpec
from nearline.windows import Window, hour_floor, parse_time

app = typer.Typer(help="Load a dataset, or your own events and items, into the lake.")

Mapping = Annotated[
    list[str] | None, typer.Option("--mapping", "-m", help="NAME=COLUMN, once for each column.")
]


@app.command("movielens-100k", epilog="nearline load movielens-100k --hold-back 0.02")
def movielens(
    path: Annotated[
        Path | None, typer.Option(help="A folder in any MovieLens layout; without: download.")
    ] = None,
    end: Annotated[
        str | None, typer.Option(help="Move the data so that it ends then (default: this hour).")
    ] = None,
    hold_back: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share kept back as live traffic.")
    ] = 0.02,
    speed: Annotated[
        float, typer.Option(min=1, help="Play what is kept back this many times faster.")
    ] = 1,
    as_json: JsonFlag = False,
) -> None:
    """MovieLens, moved in time so that its history ends now."""
    stop = hour_floor(parse_time(end) if end else datetime.now(UTC))
    folder = path or fetch_movielens_100k(settings().home / "cache")
    _report(load_with_traffic(read_movielens(folder), stop, hold_back, speed), as_json)


@app.command("synthetic", epilog="nearline load synthetic --users 1000 --events 100000 --days 30")
def synthetic(
    users: Annotated[int, typer.Option(min=1)] = 1000,
    items: Annotated[int, typer.Option(min=1)] = 2000,
    events: Annotated[int, typer.Option(min=1)] = 100_000,
    days: Annotated[int, typer.Option(min=1)] = 30,
    domain: Annotated[
        str | None, typer.Option(help="A domain's name or file (default: NEARLINE_DOMAIN).")
    ] = None,
    end: Annotated[
        str | None, typer.Option(help="Midnight after the last day (default: today).")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same stream.")] = 17,
    as_json: JsonFlag = False,
) -> None:
    """A made-up stream, for tests of load and scale. Later steps read NEARLINE_DOMAIN."""
    last = parse_time(end) if end else datetime.now(UTC)
    midnight = last.replace(hour=0, minute=0, second=0, microsecond=0)
    spec = StreamSpec(users, items, events, days, midnight, seed)
    stream = Stream(spec, load_domain(domain or settings().domain))
    lake = Lake.open()
    upsert_items(lake, stream.items())
    with tqdm(total=events, unit="event", unit_scale=True, disable=None) as bar:
        for batch in stream.batches():
            merge_raw(lake, batch)
            bar.update(batch.num_rows)
    lake.mark_complete(RAW, Window(spec.start, spec.end), rows=events)
    figures = {"events": events, "items": items, "start": spec.start, "end": spec.end}
    _print(figures, as_json)


@app.command("events", epilog="nearline load events clicks.csv -m user_id=uid --event-type view")
def events(
    path: Annotated[Path, typer.Argument(help="CSV, JSON lines or parquet.")],
    mapping: Mapping = None,
    event_type: Annotated[str | None, typer.Option(help="When the file has no type.")] = None,
    time_unit: Annotated[TimeUnit, typer.Option(help="How times are written.")] = "iso",
    as_json: JsonFlag = False,
) -> None:
    """Your own events, at the times they carry."""

    names = parse_mapping(mapping or [], RAW_SCHEMA.names)
    table = read_events(path, mapping=names, event_type=event_type, time_unit=time_unit)
    _report(load(Dataset(table, ITEM_SCHEMA.empty_table())), as_json)


@app.command("items", epilog="nearline load items products.jsonl -m item_id=sku -m title=name")
def items(
    path: Annotated[Path, typer.Argument(help="CSV, JSON lines or parquet.")],
    mapping: Mapping = None,
    as_json: JsonFlag = False,
) -> None:
    """Your own catalogue; items of the same id are replaced. An id is all that an item needs."""

    table = read_items(path, mapping=parse_mapping(mapping or [], ITEM_SCHEMA.names))
    _print({"items": load(Dataset(RAW_SCHEMA.empty_table(), table)).items}, as_json)


def _report(loaded: Loaded, as_json: bool) -> None:
    window = loaded.window
    figures: dict[str, object] = {
        "events": loaded.events,
        "users": loaded.users,
        "items": loaded.items,
        "held_back": loaded.held_back,
        "start": window and window.start.isoformat(),
        "end": window and window.end.isoformat(),
    }
    _print(figures, as_json)


def _print(figures: dict[str, object], as_json: bool) -> None:
    if as_json:
        print_json(figures)
    else:
        print_table("loaded", list(figures), [list(figures.values())])
