"""What commands print: tables for people, JSON for programs."""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

out = Console(width=int(os.environ["COLUMNS"]) if "COLUMNS" in os.environ else None)
err = Console(stderr=True)


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Says what runs, spinning on a terminal, and how long it took."""
    began = time.monotonic()
    with err.status(what):
        yield
    err.print(f"{what}: {time.monotonic() - began:.1f} s", highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on standard output; times as ISO 8601."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table; empty cells for None."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    out.print(table)
