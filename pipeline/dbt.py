"""dbt on the project, in this process, and reading what it built: on DuckDB or on Spark.

The project's tables hold one window and live until the next run. DuckDB keeps them in one file;
Spark keeps them below HOME for as long as the session lasts.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from nearline.errors import StepFailed
from nearline.schema import USER_ID
from nearline.settings import Settings, settings
from nearline.windows import Window

if TYPE_CHECKING:
    from dbt.cli.main import dbtRunnerResult
    from pyspark.sql import SparkSession

PROJECT = Path(__file__).resolve().parent.parent / "dbt_project"
SCHEMA = "nearline"
"""Where the project's tables lie, on either target."""

Query = Callable[[str], pa.Table]
"""Runs SQL where dbt built its tables."""

NAMING = (USER_ID, "session_key")
"""The columns that name a user."""

ROWS_SHOWN = 5
ROW_LENGTH = 400


@contextmanager
def warehouse() -> Iterator[Query]:
    """The place that dbt builds in, ready for a run; gives a way to read what was built.

    Raises StepFailed when Spark does not start.
    """
    if settings().dbt_target == "duckdb":
        settings().duckdb_path.parent.mkdir(parents=True, exist_ok=True)
        yield _query_duckdb
        return
    from spark_jobs.session import spark_session

    with spark_session(settings()) as spark:
        _clear(spark)
        try:
            yield lambda sql: spark.sql(sql).toArrow()
        finally:
            _clear(spark)


def _query_duckdb(sql: str) -> pa.Table:
    import duckdb

    # One writer or many readers: the connection lasts no longer than the query.
    with duckdb.connect(str(settings().duckdb_path), read_only=True) as connection:
        return connection.sql(sql).to_arrow_table()


def _clear(spark: "SparkSession") -> None:
    """Drop the tables of this session, and the files of those that were killed."""
    spark.sql(f"drop schema if exists {SCHEMA} cascade")
    shutil.rmtree(settings().home / "spark", ignore_errors=True)


def build(window: Window, query: Query) -> list[Any]:
    """Build and test every model for `window`; returns dbt's results, one for each of them.

    Raises StepFailed when a model or a test fails, with some of the rows that a test found.
    """
    outcome = run_dbt(window, "build", "--exclude-resource-type", "unit_test")
    results = list(getattr(outcome.result, "results", []))
    if not outcome.success:
        raise StepFailed(_failure(window, results, outcome.exception, query))
    return results


def run_dbt(window: Window, *arguments: str) -> "dbtRunnerResult":
    """Run one dbt command on the project; what dbt writes goes below HOME."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    home = settings().home
    with _environment(dbt_environment(settings(), window)):
        outcome = dbtRunner().invoke(
            [
                *("--quiet", "--no-use-colors", "--log-path", str(home / "logs")),
                *arguments,
                *("--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT)),
                *("--target-path", str(home / "dbt")),
            ]
        )
    DuckDBConnectionManager.close_all_connections()
    return outcome


def dbt_environment(configured: Settings, window: Window) -> dict[str, str]:
    """The environment that the dbt project reads."""
    return {
        "NEARLINE_WINDOW_START": window.start.isoformat(),
        "NEARLINE_WINDOW_END": window.end.isoformat(),
        "NEARLINE_HOME": str(configured.home),
        "NEARLINE_LAKE": configured.lake,
        "NEARLINE_DUCKDB_PATH": str(configured.duckdb_path),
        "NEARLINE_DBT_TARGET": configured.dbt_target,
        "NEARLINE_LATE_HOURS": str(configured.late_hours),
        "NEARLINE_SPARK_MASTER": configured.spark_master,
        "NEARLINE_SPARK_MEMORY": configured.spark_memory,
    }


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def _failure(
    window: Window, results: Iterable[Any], error: BaseException | None, query: Query
) -> str:
    """What failed: a model with its error, a test with its model and some of the rows it found."""
    lines = []
    for result in results:
        node, status = result.node, str(result.status)
        if status == "fail":
            model = node.attached_node.rsplit(".", 1)[-1]
            lines.append(f"test {node.name} on {model}: {result.failures} rows break it")
            lines += [f"  {row}" for row in _rows_found(node, query)]
        elif status == "error":
            lines.append(f"{node.resource_type} {node.name}: {result.message}")
    found = "\n  ".join(lines) or str(error)
    return f"dbt build of {window} failed, nothing was published:\n  {found}"


def _rows_found(test: Any, query: Query) -> list[str]:
    """The first rows that a failed test returns, each as one short line; users are not named.

    The lines go to logs, where nobody who is to be forgotten is looked for.
    """
    found = query(f"select * from ({test.compiled_code}) as found limit {ROWS_SHOWN}")
    texts = (
        ", ".join(f"{name}={'…' if name in NAMING else value}" for name, value in row.items())
        for row in found.to_pylist()
    )
    return [text if len(text) <= ROW_LENGTH else f"{text[:ROW_LENGTH]}…" for text in texts]
