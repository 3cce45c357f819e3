"""`nearline train`, `nearline finetune`, `nearline releases` and `nearline evaluate`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nearline.console import (
    JsonFlag,
    err,
    out,
    print_json,
    print_table,
    require_writable,
    write_json,
)
from nearline.errors import BadInput, CorruptRelease, NotReady, StepFailed
from nearline.pushed import pushed
from nearline.releases import OF_PARENT, RETENTION, ReleaseManifest, ReleaseStore
from nearline.settings import LARGEST_SEED
from nearline.windows import Window

Start = Annotated[str, typer.Option(help="First hour, as 2026-01-31T13:00Z.")]
End = Annotated[str, typer.Option(help="The hour after the last.")]
Promote = Annotated[bool, typer.Option("--promote", help="Activate it if the gate agrees.")]

PART = " of "
"""What stands between a figure and the part of the events that it is of."""

releases = typer.Typer(help="See the releases, and go back to an earlier one.")


def train(start: Start, end: End, promote: Promote = False, as_json: JsonFlag = False) -> None:
    """Learn the whole model again from the events of a window, and publish a release.

    A published release is not active yet: see --promote.
    Example: nearline train --start 2025-06-01T00:00Z --end 2026-01-31T13:00Z --promote
    """
    from training.nightly import train_nightly

    with _resumable():
        version = train_nightly(Window.parse(start, end))
    _finish(version, promote, as_json)


def finetune(
    start: Start,
    end: End,
    parent: Annotated[
        str | None, typer.Option(help="Release to go on from: the active one.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also where hours are left out, or known already.")
    ] = False,
    promote: Promote = False,
    as_json: JsonFlag = False,
) -> None:
    """Tune a release on the events of some hours, and publish a new one.

    The hours follow those that the release has learned; they may begin earlier, and repeat some.
    A published release is not active yet: see --promote.
    Example: nearline finetune --start 2026-01-31T13:00Z --end 2026-01-31T14:00Z --promote
    """
    from training.finetune import finetune as tune

    parent = parent or ReleaseStore.open().active()
    if parent is None:
        raise NotReady("no release is active: run `nearline train --promote`, or give --parent")
    window = Window.parse(start, end)
    if not force:
        _require_next(window, ReleaseStore.open().load(parent).manifest)
    version = tune(window, parent)
    if version is None:
        _say(f"nothing to learn in {window}: {parent} stays as it is", {"version": None}, as_json)
        return
    _finish(version, promote, as_json)


def _require_next(window: Window, parent: ReleaseManifest) -> None:
    """Raise BadInput for hours that leave some out after a release's data, or end no later."""
    until = f"{parent.window_end:%Y-%m-%dT%H:%MZ}"
    if window.start > parent.window_end:
        raise BadInput(
            f"the data of {parent.version} ends at {until}, and {window} begins later: nothing "
            f"would return to the hours between; use --start {until}, or --force to leave them out"
        )
    if window.end <= parent.window_end:
        raise BadInput(
            f"{parent.version} has learned all up to {until}, and {window} ends no later: give an "
            "--end after that, or --force to learn these hours again"
        )


@contextmanager
def _resumable() -> Iterator[None]:
    """Ctrl-C ends a training with a word on what was kept of it."""
    try:
        yield
    except KeyboardInterrupt:
        err.print(
            "interrupted: the same command goes on after the last pass kept, if any was",
            highlight=False,
        )
        raise


class Protocol(StrEnum):
    """How a file is split into what is learned and what is asked."""

    LEAVE_ONE_OUT = "leave-one-out"


def evaluate(
    sequences: Annotated[
        Path, typer.Option(help="One user a line, `user item item …`, oldest first; may be .xz.")
    ],
    targets: Annotated[
        Path | None,
        typer.Option(help="Each line's last item, where it is split off; lines have no user then."),
    ] = None,
    attributes: Annotated[
        Path | None, typer.Option(help="JSON, item to list of attribute ids; may be .xz.")
    ] = None,
    protocol: Annotated[
        Protocol, typer.Option(help="Each user's last item is the test, the one before validates.")
    ] = Protocol.LEAVE_ONE_OUT,
    size: Annotated[
        str, typer.Option(help="Size of the model: small, base, large, or a YAML file.")
    ] = "small",
    max_minutes: Annotated[
        float,
        typer.Option(min=0.0, help="The training stops after this; before a kill counts."),
    ] = 30.0,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of every random choice.")
    ] = 17,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="OUT", help="Write the figures there too.")
    ] = None,
) -> None:
    """Train the model on any file of sequences, and tell how well it foresees.

    All items are ranked but those that the user has touched. Needs no lake, makes no release.
    Example: nearline evaluate --sequences beauty.txt.xz --max-minutes 10 --json figures.json
    """
    from training.protocols import judge_leave_one_out
    from training.recipe import load_recipe
    from training.sequences import read_attributes, read_sequences, read_split_sequences

    require_writable(json_file)
    recipe = load_recipe(size)
    told: dict[str, Any] = {"protocol": protocol.value, "size": size, "seed": seed}
    with _resumable():
        judged = judge_leave_one_out(
            read_split_sequences(sequences, targets) if targets else read_sequences(sequences),
            None if attributes is None else read_attributes(attributes),
            recipe,
            max_minutes=max_minutes,
            seed=seed,
            name=sequences.name,
        )
    told |= judged.figures | {"stopped": judged.stopped}
    write_json(told, json_file)
    whole = ((name, value) for name, value in told.items() if PART not in name)
    print_table(f"{protocol.value}: {sequences.name}", ["", ""], whole)
    _tell_parts({"NDCG@10": judged.figures})


@releases.callback(invoke_without_command=True)
def _default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_releases()


@releases.command("list")
def list_releases(as_json: JsonFlag = False) -> None:
    """All releases, oldest first; the active one is marked.

    A night's NDCG@10 is that of the newest events before it learned them; of an hour it is told
    how well it foresees what came before the hour, and how well its parent did. Of a parent the end
    of its version is shown.
    Example: nearline releases list --json
    """
    store = ReleaseStore.open()
    active, manifests = _active(store), store.manifests()
    if as_json:
        print_json([_facts(manifest, active) for manifest in manifests])
        return
    rows = [
        [
            "*" if manifest.version == active else "",
            manifest.version,
            manifest.parent and manifest.parent.rpartition("-")[-1],
            f"{manifest.window_end:%Y-%m-%d %H:%M}",
            "passed" if manifest.promoted else "refused",
            _figure(manifest.metrics.get("ndcg@10")),
            _kept(manifest),
        ]
        for manifest in manifests
    ]
    columns = ["", "version", "parent", "data until", "gate", "NDCG@10", "kept NDCG@10"]
    print_table("releases", columns, rows, whole=["version", "parent", "gate"])


@releases.command("show")
def show(
    version: Annotated[str, typer.Argument(help="As `nearline releases` lists it.")],
    as_json: JsonFlag = False,
) -> None:
    """One release: verdict, figures, lineage.

    Example: nearline releases show 20260131T13-nightly-0123abcd
    """
    store = ReleaseStore.open()
    manifest, active = store.load(version).manifest, _active(store)
    if as_json:
        print_json(_facts(manifest, active))
    else:
        _tell(manifest, active)


@releases.command("promote")
def promote(
    version: Annotated[str, typer.Argument(help="As `nearline releases` lists it.")],
    as_json: JsonFlag = False,
) -> None:
    """Make a release that the gate let pass the active one, at once.

    An hourly release goes live only over its parent, a night only over older ones. The vectors
    online follow with the next run, or by `nearline push`.
    Example: nearline releases promote 20260131T13-nightly-0123abcd
    """
    ReleaseStore.open().promote(version)
    _say_active(version, as_json)


@releases.command("rollback")
def rollback(
    version: Annotated[
        str | None, typer.Argument(help="Release to return to; without: the one before.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make an earlier release the active one, at once.

    It holds until another release is promoted; those that were active since stay away until a
    rollback names them, which undoes the one that left them. The vectors online follow with the
    next run, or by `nearline push`; until then users are encoded when they ask.
    Example: nearline releases rollback
    """
    _say_active(ReleaseStore.open().rollback(version), as_json)


def _active(store: ReleaseStore) -> str | None:
    """The active version; none, and a word of it, where the pointer is damaged."""
    try:
        return store.active()
    except CorruptRelease as error:
        err.print(f"[bold red]wrong[/] {error}", highlight=False)
        return None


def _finish(version: str, promote: bool, as_json: bool) -> None:
    """Tell of a new release; activate it where that was asked for.

    Raises ReleaseRefused when the gate refused it, or its parent is not active any more.
    """
    store = ReleaseStore.open()
    manifest = store.load(version).manifest
    if promote:
        store.promote(version)
    if as_json:
        print_json(_facts(manifest, store.active()))
        return
    _tell(manifest, store.active())
    if version != store.active():
        out.print("It is published, not active: --promote activates it.", highlight=False)
    else:
        _tell_push(version)


def _tell(manifest: ReleaseManifest, active: str | None) -> None:
    lineage = {k: v for k, v in manifest.lineage.items() if not isinstance(v, (dict, list))}
    facts = {
        "version": manifest.version,
        "active": "yes" if manifest.version == active else "no",
        "kind": manifest.kind,
        "parent": manifest.parent,
        "window": manifest.window,
        "gate": "passed" if manifest.promoted else "refused",
        "drift": _drift(manifest),
        "ranker": manifest.ranking.reason if manifest.ranking else None,
        **lineage,
    }
    print_table("release", ["", ""], facts.items())
    print_table("what the gate says", ["reason"], [[reason] for reason in manifest.reasons])
    measured = _measured(manifest)
    names = list(dict.fromkeys(name for found in measured.values() for name in found))
    rows = [
        [name, *(_figure(found.get(name)) for found in measured.values())]
        for name in names
        if PART not in name
    ]
    print_table("figures", ["", *measured], rows)
    _tell_parts(measured)
    print_table("seconds", ["step", "seconds"], manifest.lineage.get("seconds", {}).items())


def _measured(manifest: ReleaseManifest) -> dict[str, dict[str, float]]:
    """Figures by whose they are, and on what: the columns of a table."""
    if manifest.kind == "nightly":
        return {"this release": manifest.metrics, **manifest.baselines}
    whose = {
        OF_PARENT: "its parent, on the new hours",
        RETENTION: "this release, on what came before",
    }
    return {
        column: {
            name.removeprefix(prefix): value
            for name, value in manifest.metrics.items()
            if name.startswith(prefix)
        }
        for prefix, column in whose.items()
    }


def _tell_parts(measured: Mapping[str, Mapping[str, float]]) -> None:
    """NDCG@10 of parts of the events, by method, as a table."""
    told = next(iter(measured.values()))
    prefix = f"targets{PART}"
    parts = [name.removeprefix(prefix) for name in told if name.startswith(prefix)]
    rows = [
        [
            part,
            f"{told[prefix + part]:.0f}",
            *(_figure(found.get(f"ndcg@10{PART}{part}")) for found in measured.values()),
        ]
        for part in parts
    ]
    if rows:
        print_table("parts of the events", ["", "events", *measured], rows)


def _kept(manifest: ReleaseManifest) -> str | None:
    """What an hour left of its parent's foresight of earlier events; None for a night."""
    after, before = (
        _figure(manifest.metrics.get(f"{RETENTION}{whose}ndcg@10")) for whose in ("", OF_PARENT)
    )
    return after and f"{after} of {before}"


def _drift(manifest: ReleaseManifest) -> str | None:
    if manifest.drift is None:
        return None
    return f"{manifest.drift}{'; a night is wanted' if manifest.drift.past else ''}"


def _facts(manifest: ReleaseManifest, active: str | None) -> dict[str, Any]:
    return manifest.model_dump(mode="json") | {"active": manifest.version == active}


def _figure(value: float | None) -> str | None:
    """Four digits, and none of what is counted; the JSON has them all."""
    return None if value is None else f"{value:.4f}" if value % 1 else f"{value:.0f}"


def _say_active(version: str, as_json: bool) -> None:
    _say(f"{version} is active", {"active": version}, as_json)
    if not as_json:
        _tell_push(version)


def _tell_push(active: str) -> None:
    """Say what is to be done where the vectors online are others', or nobody can tell whose."""
    try:
        due = pushed() != active
    except StepFailed:
        due = True
    if due:
        out.print(
            "Its vectors are not online: run `nearline push`, or leave it to the scheduler's next "
            "run; until then users are encoded when they ask.",
            highlight=False,
        )


def _say(text: str, facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        out.print(text, highlight=False)
