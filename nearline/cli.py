"""The `nearline` command: each room adds its own commands through the `nearline.commands` group."""

from importlib.metadata import entry_points

import typer

from nearline import __version__
from nearline.console import err, out
from nearline.errors import NearlineError

STORY = ("load", "features", "train", "finetune", "releases", "serve", "lookup", "status")


def build() -> typer.Typer:
    """The command with every installed room's part, told in the order of the ring."""
    app = typer.Typer(
        name="nearline",
        help="A recommender with three clocks: night, hour, request.",
        epilog="Begin with: nearline load movielens-100k",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_main)
    found = {entry.name: entry for entry in entry_points(group="nearline.commands")}
    told = [name for name in STORY if name in found]
    for name in told + sorted(set(found) - set(told)):
        command = found[name].load()
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
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
    try:
        build()()
    except NearlineError as error:
        err.print(f"[bold red]error[/] {type(error).__name__}: {error}", highlight=False)
        raise SystemExit(1) from error
