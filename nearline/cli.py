"""The `nearline` command: each room adds its own commands through the `nearline.commands` group."""

import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

import typer
from typer.core import TyperGroup

from nearline import __version__
from nearline.console import err, out, tell_steps
from nearline.errors import NearlineError

STORY = (
    *("load", "features", "train", "finetune", "releases", "evaluate", "replay"),
    *("serve", "keys", "lookup", "experiments", "clicks", "push", "status"),
    *("drift", "housekeeping", "forget", "doctor"),
    *("airflow", "demo", "traffic", "down"),
)
_PASSED_ON = {"airflow": {"allow_extra_args": True, "ignore_unknown_options": True}}
"""Commands that hand on arguments which they do not know."""


class _Told(TyperGroup):
    """Shows commands in the order of the ring."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return [name for name in STORY if name in self.commands]


def build(arguments: Sequence[str] = ()) -> typer.Typer:
    """The command with every installed room's part, or with only the part that is asked for.

    A room loads in up to a second: who asks for one should not wait for all.
    """
    app = typer.Typer(
        name="nearline",
        cls=_Told,
        help="A recommender with three clocks: night, hour, request.",
        epilog="Begin with: nearline load movielens-100k",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_main)
    found = {entry.name: entry for entry in entry_points(group="nearline.commands")}
    asked = next((name for name in arguments if name in found), None)
    for name in [asked] if asked else found:
        command = found[name].load()
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name, context_settings=_PASSED_ON.get(name))(command)
    return app


def _version(show: bool) -> None:
    if show:
        out.print(__version__)
        raise typer.Exit


def _main(
    version: bool = typer.Option(False, "--version", callback=_version, help="Show the version."),
) -> None: ...


def main() -> None:
    """Run the command; an error of ours is one clear message, not a traceback."""
    tell_steps()
    try:
        build(sys.argv[1:2])()
    except NearlineError as error:
        err.print(f"[bold red]error[/] {type(error).__name__}: {error}", highlight=False)
        raise SystemExit(1) from error
