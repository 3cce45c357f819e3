"""Which files of the lake hold the rows of a feature view that lie in a range of times."""

from datetime import datetime

import duckdb
import pyarrow as pa
from feast import FeatureView
from feast.data_source import DataSource
from feast.type_map import feast_value_type_to_pa
from feast.utils import make_tzaware

from nearline.lake import Lake
from nearline.schema import FEATURE_TS, TIMESTAMP
from nearline.settings import settings
from nearline.windows import HOUR, Window, hour_floor


def dataset_of(source: DataSource | None) -> str:
    """The dataset of the lake that a source names."""
    return str(source.path)  # type: ignore[union-attr]


def partition_files(
    lake: Lake, dataset: str, start: datetime | None, end: datetime | None
) -> list[str]:
    """The partitions that hold rows with a feature_ts in `[start, end]`, oldest first.

    A row's time is the end of its hour. The file of a compacted day holds other hours too.
    """
    if start is None or end is None:
        return lake.files(dataset)
    first, after = hour_floor(make_tzaware(start)) - HOUR, hour_floor(make_tzaware(end))
    return lake.files(dataset, Window(first, after)) if first < after else []


def view_schema(view: FeatureView) -> pa.Schema:
    """The columns that a view's partitions have."""
    fields = [(f.name, feast_value_type_to_pa(f.dtype.to_value_type())) for f in view.schema]
    return pa.schema([*fields, (FEATURE_TS, TIMESTAMP)])


def open_duckdb(**options: str) -> duckdb.DuckDBPyConnection:
    """A DuckDB of this process alone, silent, that spills to disk where its memory is short."""
    spill = settings().home / "feast" / "spill"
    connection = duckdb.connect(config={"temp_directory": str(spill), **options})
    connection.execute("set enable_progress_bar = false")
    return connection
