"""What an hour of features looks like: a few mergeable numbers for each, whatever its rows.

A series is one thing that is counted of a feature: the `value` of a number, the `length` of a text
or list, the `elements` of a list, the `age_hours` of a time. Values fall into bins that are the
same for all data, so counts of hours add up: half octaves of the size, by sign, around zero.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from nearline.lake import Lake
from nearline.schema import FEATURE_TS, ITEM_ID, USER_ID
from nearline.windows import Window

FEATURE_SUMMARY = "quality/feature_summary"
SUMMARY_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("feature", pa.string()),
        ("series", pa.string()),
        ("rows", pa.int64()),
        ("nulls", pa.int64()),
        ("values", pa.int64()),
        ("value_sum", pa.float64()),
        ("bins", pa.list_(pa.int16())),
        ("counts", pa.list_(pa.int64())),
    ]
)
"""One series of an hour: `rows` of the hour; `nulls`, `values`, their sum and their bins."""

_KEY = ("dataset", "feature", "series")
_NOT_FEATURES = (USER_ID, ITEM_ID, "surface", FEATURE_TS)
_SMALLEST, _LARGEST = -20, 80
"""Half octaves: sizes from 2**-10 to 2**40 are told apart."""
_US_AN_HOUR = 3_600_000_000


def write_summaries(lake: Lake, datasets: list[str], window: Window) -> int:
    """Summarise each hour of `window` that a dataset has rows of; returns the rows written."""

    def write(hour: datetime) -> int:
        found = [summary(lake, dataset, hour) for dataset in datasets]
        table = pa.concat_tables(found)
        return lake.write_hour(FEATURE_SUMMARY, hour, table, sort_by=_KEY).rows

    lake.expand(FEATURE_SUMMARY, window)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return sum(pool.map(write, window.hours()))


def summary(lake: Lake, dataset: str, hour: datetime) -> pa.Table:
    """The series of one hour of a dataset (SUMMARY_SCHEMA); none when it has no rows."""
    window = Window.of_hour(hour)
    files = lake.files(dataset, window)
    if not files:
        return SUMMARY_SCHEMA.empty_table()
    with lake.fs.open(files[0], "rb") as source:
        schema = pq.read_schema(source)
    return summarise(dataset, lake.read(dataset, window, schema=schema))


def summarise(dataset: str, table: pa.Table) -> pa.Table:
    """The series of each feature of some rows (SUMMARY_SCHEMA)."""
    rows = [
        {"dataset": dataset, "feature": name, "series": series, "rows": table.num_rows}
        | _counted(values)
        for name in table.column_names
        if name not in _NOT_FEATURES
        for series, values in _series(_whole(table[name]), _whole(table[FEATURE_TS]))
    ]
    return pa.Table.from_pylist(rows, schema=SUMMARY_SCHEMA)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _series(column: pa.Array, known: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """The numbers that tell of a feature; of a type that is not known here, only what is null."""
    kind = column.type
    if pt.is_list(kind):
        yield "length", pc.list_value_length(column)
        inside = _series(pc.list_flatten(column), known.take(pc.list_parent_indices(column)))
        yield from (("elements", values) for _, values in inside)
    elif pt.is_string(kind):
        yield "length", pc.utf8_length(column)
    elif pt.is_timestamp(kind):
        ages = pc.cast(known, pa.int64()), pc.cast(column, pa.int64())
        yield "age_hours", pc.divide(pc.cast(pc.subtract(*ages), pa.float64()), _US_AN_HOUR)
    elif pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind) or pt.is_boolean(kind):
        yield "value", column
    else:
        yield "nulls", pc.if_else(pc.is_valid(column), 0, pa.scalar(None, pa.int64()))


def _counted(values: pa.Array) -> dict[str, object]:
    numbers = pc.cast(pc.drop_null(values), pa.float64()).to_numpy(zero_copy_only=False)
    numbers = numbers[~np.isnan(numbers)]
    bins, counts = np.unique(bin_of(numbers), return_counts=True)
    return {
        "nulls": len(values) - len(numbers),
        "values": len(numbers),
        "value_sum": float(np.sum(numbers)),
        "bins": bins.tolist(),
        "counts": counts.tolist(),
    }


def bin_of(numbers: np.ndarray) -> np.ndarray:
    """The bin of each number (float64, no NaN): 0 for zero, else its sign times its half octave."""
    size = np.abs(numbers)
    with np.errstate(divide="ignore"):
        octave = np.clip(np.floor(2 * np.log2(size)), _SMALLEST, _LARGEST) - _SMALLEST + 1
    return np.where(size > 0, np.sign(numbers) * octave, 0).astype(np.int16)
