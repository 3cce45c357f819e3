"""Marts: one dbt run for a window, then the feature marts' rows as lake partitions.

DuckDB holds the marts, the lake hands them on: Feast, training and serving read only
`features/<name>` in the lake, so nothing but this step opens the DuckDB file.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from nearline.domains import Domain, load_domain
from nearline.errors import StepFailed
from nearline.lake import EVENTS, Lake, hour_groups
from nearline.schema import FEATURE_TS, TIMESTAMP
from nearline.settings import Settings, settings
from nearline.windows import HOUR, Window

if TYPE_CHECKING:
    from dbt.cli.main import dbtRunnerResult

PROJECT = Path(__file__).resolve().parent.parent / "dbt_project"
DOMAIN = "domain"
PARTIALS = (
    "partials/user_hourly",
    "partials/item_hourly",
    "partials/user_category_hourly",
    "partials/user_session_hourly",
    "partials/user_query_hourly",
)
FEATURES = {
    "feat_user_activity": "features/user_activity",
    "feat_item_popularity": "features/item_popularity",
    "feat_trending": "features/trending",
    "feat_user_category_affinity": "features/user_category_affinity",
}
"""Feature mart → dataset of the lake."""

_INPUTS = {
    "feat_user_activity": ("partials/user_hourly",),
    "feat_item_popularity": ("partials/item_hourly", "catalogue"),
    "feat_trending": ("partials/item_hourly", "catalogue"),
    "feat_user_category_affinity": ("partials/user_category_hourly",),
}
_HOUR = "_hour"

DOMAIN_SCHEMA = pa.schema(
    [
        ("event_type", pa.string()),
        ("positive", pa.bool_()),
        ("weight", pa.float64()),
        ("value_min", pa.float64()),
        ("value_max", pa.float64()),
        ("value_required", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class MartReport:
    """What one run did: models built, tests passed, rows written for each dataset of the lake."""

    window: Window
    models: int
    tests: int
    rows: dict[str, int]


def mart_names() -> list[str]:
    """The marts that a run builds, read from the project's folders without starting dbt."""
    folders = (PROJECT / "models" / "marts", PROJECT / "models" / "features")
    return sorted(path.stem for folder in folders for path in folder.glob("*.sql"))


def build_marts(window: Window) -> MartReport:
    """Build and test all marts for `window`, then publish the feature marts in the lake.

    The hours that late events of the window changed are built and published again too. Raises
    MissingPartition when partials of the window are not complete, StepFailed when a model or a test
    fails (nothing is published then). Only one run at a time: DuckDB has one writer.
    """
    lake = Lake.open()
    for dataset in PARTIALS:
        lake.require_complete(dataset, window)
    lake.write_snapshot(DOMAIN, domain_table(load_domain(settings().domain)))
    changed = lake.changed(EVENTS, window)
    results = _dbt_build(changed)
    rows = {
        dataset: export(lake, dataset, table, changed, inputs=_INPUTS[mart])
        for (mart, dataset), table in zip(FEATURES.items(), _feature_rows(changed), strict=True)
    }
    for dataset, count in rows.items():
        lake.mark_complete(dataset, window, rows=count, since=changed.start)
    kinds = [result.node.resource_type.value for result in results]
    return MartReport(window, kinds.count("model"), kinds.count("test"), rows)


def domain_table(domain: Domain) -> pa.Table:
    """The domain's event types as the rows that the SQL joins."""
    rows = [
        {
            "event_type": name,
            "positive": kind.positive,
            "weight": kind.weight,
            "value_min": kind.value.min if kind.value else None,
            "value_max": kind.value.max if kind.value else None,
            "value_required": bool(kind.value and kind.value.required),
        }
        for name, kind in sorted(domain.event_types.items())
    ]
    return pa.Table.from_pylist(rows, schema=DOMAIN_SCHEMA)


def export(
    lake: Lake, dataset: str, table: pa.Table, window: Window, *, inputs: Iterable[str] = ()
) -> int:
    """Write rows as one partition for each hour of the window; an hour without rows loses its file.

    Returns the number of rows. The partition is the hour that ends at the row's feature_ts.
    """
    hours = pc.subtract(table[FEATURE_TS], pa.scalar(HOUR, pa.duration("us")))
    partitions = dict.fromkeys(window.hours(), table.schema.empty_table())
    partitions |= dict(hour_groups(table.append_column(_HOUR, hours), _HOUR))

    def write(hour: datetime) -> None:
        rows = partitions[hour].select(table.column_names)
        lake.write_hour(dataset, hour, rows, inputs=tuple(inputs))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, partitions))
    return int(table.num_rows)


def _feature_rows(window: Window) -> Iterator[pa.Table]:
    """The rows of each feature mart in the window, ordered by hour and key, times in UTC."""
    import duckdb

    with duckdb.connect(str(settings().duckdb_path), read_only=True) as connection:
        for mart in FEATURES:
            rows = connection.sql(
                f"select * from {mart} where {FEATURE_TS} > $1 and {FEATURE_TS} <= $2 "
                f"order by {FEATURE_TS}, 1",
                params=[_naive(window.start), _naive(window.end)],
            )
            yield _in_utc(rows.to_arrow_table())


def _naive(ts: datetime) -> datetime:
    return ts.replace(tzinfo=None)


def _in_utc(table: pa.Table) -> pa.Table:
    fields = [
        field.with_type(TIMESTAMP) if pa.types.is_timestamp(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def _dbt_build(window: Window) -> list[Any]:
    outcome = run_dbt(window, "build", "--exclude-resource-type", "unit_test")
    results = list(getattr(outcome.result, "results", []))
    if not outcome.success:
        raise StepFailed(_failure(window, results, outcome.exception))
    return results


def run_dbt(window: Window, *arguments: str) -> "dbtRunnerResult":
    """Run one dbt command on the project, in this process; what dbt writes goes below HOME."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    home = settings().home
    settings().duckdb_path.parent.mkdir(parents=True, exist_ok=True)
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
        "NEARLINE_LAKE": configured.lake,
        "NEARLINE_DUCKDB_PATH": str(configured.duckdb_path),
        "NEARLINE_DBT_TARGET": configured.dbt_target,
        "NEARLINE_LATE_HOURS": str(configured.late_hours),
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


def _failure(window: Window, results: Iterable[Any], error: BaseException | None) -> str:
    """One line for each failed model or test: its name, what it was about, how many rows."""
    lines = []
    for result in results:
        status = str(result.status)
        if status == "fail":
            about = ", ".join(_models_of(result.node))
            lines.append(f"test {result.node.name} on {about}: {result.failures} rows break it")
        elif status == "error":
            lines.append(f"{result.node.resource_type} {result.node.name}: {result.message}")
    found = "\n  ".join(lines) or str(error)
    return f"dbt build of {window} failed, nothing was published:\n  {found}"


def _models_of(node: Any) -> list[str]:
    return [unique_id.rsplit(".", 1)[-1] for unique_id in node.depends_on.nodes]
