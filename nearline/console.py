"""What commands print: tables for people, JSON for programs."""

import json
import logging
import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from nearline.errors import BadInput

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

WIDTH = 100
"""Columns of what goes to a file or a pipe, which have no width of their own."""


def _width() -> int | None:
    """As COLUMNS says; a terminal tells its own."""
    if "COLUMNS" in os.environ:
        return int(os.environ["COLUMNS"])
    return None if sys.stdout.isatty() else WIDTH


out = Console(width=_width())
err = Console(stderr=True)


steps = logging.getLogger("nearline.steps")
"""Steps that ended, for where there is no terminal: the scheduler's logs, or a command's."""


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Says what runs, spinning on a terminal, and how long it took."""
    began = time.monotonic()
    with err.status(what):
        yield
    say(f"{what}: {time.monotonic() - began:.1f} s")


def say(text: str) -> None:
    """Tell what a step did: on the terminal, or in the log where there is none."""
    if err.is_terminal:
        err.print(text, highlight=False)
    else:
        steps.info(text)


def tell_steps() -> None:
    """Show ended steps on standard error, as a command does; the scheduler has its own way."""
    steps.setLevel(logging.INFO)
    steps.addHandler(logging.StreamHandler())
    steps.propagate = False


def print_json(value: Any) -> None:
    """One JSON document on standard output; times as ISO 8601."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def require_writable(*files: Path | None) -> None:
    """Raise BadInput for a file to be written whose folder is not there; before the work begins."""
    for file in files:
        if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
            raise BadInput(f"cannot write {file}: give a file in a folder that exists")


def write_json(value: Any, file: Path | None) -> None:
    """One JSON document in a file, where one is given."""
    if file is not None:
        file.write_text(json.dumps(value, indent=2) + "\n")


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    whole: Collection[str] = (),
) -> None:
    """A table; empty cells for None. Cells of the columns `whole` are not cut: people copy them."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in whole)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    out.print(table)
