"""The same features by DuckDB alone: what one machine can do when nothing else is asked of it.

limit.sql makes the partials from the raw files; the SQL that dbt compiled for the window makes the
features from them, as tables, then each is written as one file. No hourly files, no manifests, no
tests, no late events.
"""

import re
from pathlib import Path
from typing import Annotated

import duckdb
import typer

from benchmarks.harness import run
from nearline.errors import BadInput
from pipeline.marts import FEATURES

_PARTIALS = Path(__file__).with_name("limit.sql")
_SCAN = re.compile(r"read_parquet\(\['[^']*/partials/(\w+)/[^\]]*\], hive_partitioning = false\)")
_SCHEMA = "nearline"


def compute(home: Path) -> Path:
    """Write the features of the lake in `home` to a folder, one file each; returns the folder.

    Raises BadInput where dbt has compiled nothing in `home`.
    """
    models = home / "dbt" / "compiled" / "nearline" / "models"
    if not models.is_dir():
        raise BadInput(f"{models} is missing: have dbt compile the models there first")
    written = home / "limit"
    written.mkdir(exist_ok=True)
    with duckdb.connect(str(written / "marts.duckdb")) as connection:
        connection.execute(f"create schema {_SCHEMA}; use {_SCHEMA}")
        connection.execute("set TimeZone = 'UTC'; set preserve_insertion_order = false")
        connection.execute(f"set variable lake = '{home / 'lake'}'")
        connection.execute(_PARTIALS.read_text())
        for folder in ("intermediate", "features"):
            for path in sorted((models / folder).glob("*.sql")):
                query = _SCAN.sub(r"\1", path.read_text())
                connection.execute(f"create table {path.stem} as {query}")
        for mart in FEATURES:
            connection.execute(f"copy {mart} to '{written / mart}.parquet'")
    return written


def differing_rows(home: Path) -> dict[str, int]:
    """Rows of each feature that only one of the two ways has: none, if both compute the same."""
    found = {}
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        for mart, dataset in FEATURES.items():
            lake = f"'{home}/lake/{dataset}/*/*/data.parquet', hive_partitioning = false"
            ours, limit = (
                f"select * from read_parquet({files})"
                for files in (lake, f"'{home}/limit/{mart}.parquet'")
            )
            query = f"(({ours} except all {limit}) union all ({limit} except all {ours}))"
            (count,) = connection.sql(f"select count(*) from {query}").fetchall()[0]
            found[mart] = count
    return found


def main(home: Annotated[Path, typer.Argument(help="NEARLINE_HOME of a finished run.")]) -> None:
    """Compute the features of a home's lake by DuckDB alone, into its folder `limit`.

    Example: python -m benchmarks.limit var
    """
    print(compute(home))


if __name__ == "__main__":
    run(main)
