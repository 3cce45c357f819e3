"""Lake partitions as Spark frames, and Spark groups as lake partitions.

Thousands of small files are read by Python workers through the lake itself: no listing, no job
for each file, any fsspec path (2,500 files: 1.2 s instead of 11 s by Spark's own reader). Hours
travel through Spark as whole numbers: hours since 1970.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from nearline.lake import Lake
from nearline.partition import gathered
from nearline.windows import Window, spans

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BATCH_ROWS = 50_000
TASKS_PER_SLOT = 2

WRITTEN = pa.schema(
    [("dataset", pa.string()), ("hour", pa.int64()), ("part", pa.string()), ("rows", pa.int64())]
)
"""What a writer reports: `rows` of a dataset's hour; `part` names a share of them, or is null.

A day is told by its first hour."""


def epoch_hour(ts: datetime) -> int:
    """Whole hours since 1970."""
    return (ts - EPOCH) // timedelta(hours=1)


def hour_of(time: str) -> Column:
    """The epoch hour that a column of times falls in."""
    return F.expr(f"unix_seconds({time}) div 3600")


def hour_start(hour: int) -> datetime:
    """The time at which an epoch hour begins."""
    return EPOCH + timedelta(hours=hour)


def hours_there(lake: Lake, dataset: str, window: Window) -> list[int]:
    """The epoch hours of `window` for which a dataset has a partition."""
    return [epoch_hour(hour) for hour in lake.hours(dataset, window)]


def files_of(lake: Lake, dataset: str, hours: Iterable[int]) -> list[str]:
    """The partition files of epoch hours; a compacted day of which one is, is told whole."""
    windows = spans(map(hour_start, hours))
    files = (path for window in windows for path in lake.files(dataset, window))
    return list(dict.fromkeys(files))


def expand_hours(lake: Lake, datasets: Iterable[str], hours: Collection[int]) -> None:
    """Make the epoch hours of datasets ready to be written: those of compacted days are not."""
    windows = spans(map(hour_start, hours))
    for dataset in datasets:
        for window in windows:
            lake.expand(dataset, window)


def read_files(
    spark: SparkSession,
    lake: Lake,
    files: Sequence[str],
    schema: pa.Schema,
    columns: Sequence[str] | None = None,
    window: Window | None = None,
    among: tuple[str, pa.Array] | None = None,
) -> DataFrame:
    """The rows of partition files, in no order; `columns` of `schema`, all without.

    Of compacted days only the hours of `window`, where one is given. `among` names a column, and
    values of which a row must have one.
    """
    wanted = pa.schema([schema.field(name) for name in columns or schema.names])
    paths = list(files)

    def read_file(path: str) -> pa.Table:
        rows = lake.read_file(path, schema=wanted, window=window)
        return rows.filter(pc.is_in(rows[among[0]], value_set=among[1])) if among else rows

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        indices = (index for batch in batches for index in batch.column(0).to_pylist())
        tables = (read_file(paths[index]) for index in indices)
        for table in gathered(tables, rows=BATCH_ROWS):
            yield from table.to_batches()

    slots = spark.sparkContext.defaultParallelism * TASKS_PER_SLOT
    tasks = max(1, min(len(paths), slots))
    return spark.range(0, len(paths), 1, tasks).mapInArrow(read, from_arrow_schema(wanted))


def write_groups(
    frame: DataFrame, keys: Sequence[str], write: Callable[[tuple, pa.Table], list[tuple]]
) -> list[Row]:
    """Hand each group of rows to `write` in a Python worker; gather the WRITTEN rows it returns."""

    def report(key: tuple, table: pa.Table) -> pa.Table:
        rows = [dict(zip(WRITTEN.names, row, strict=True)) for row in write(key, table)]
        return pa.Table.from_pylist(rows, schema=WRITTEN)

    return map_groups(frame, keys, report, WRITTEN).collect()


def map_groups(
    frame: DataFrame,
    keys: Sequence[str],
    change: Callable[[tuple, pa.Table], pa.Table],
    schema: pa.Schema,
) -> DataFrame:
    """What `change` makes of each group of rows in a Python worker, as rows of `schema`.

    Groups arrive sorted and are cut from large batches: for groups of a few rows that costs a
    quarter of `applyInArrow`, which ships each of them alone.
    """

    def apply(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for key, table in sorted_groups(batches, keys):
            yield from change(key, table).to_batches()

    grouped = frame.repartition(*keys).sortWithinPartitions(*keys)
    return grouped.mapInArrow(apply, from_arrow_schema(schema))


def sorted_groups(
    batches: Iterable[pa.RecordBatch], keys: Sequence[str]
) -> Iterator[tuple[tuple, pa.Table]]:
    """The groups in batches that are sorted by `keys`; a group may go on in the next batch."""
    current: tuple | None = None
    held: list[pa.RecordBatch] = []
    for batch in batches:
        for key, rows in _runs(batch, keys):
            if current is not None and key != current:
                yield current, pa.Table.from_batches(held)
                held = []
            current = key
            held.append(rows)
    if current is not None:
        yield current, pa.Table.from_batches(held)


def _runs(batch: pa.RecordBatch, keys: Sequence[str]) -> Iterator[tuple[tuple, pa.RecordBatch]]:
    """Stretches of neighbouring rows with equal keys."""
    if batch.num_rows == 0:
        return
    changed = np.zeros(batch.num_rows - 1, dtype=bool)
    for name in keys:
        column = batch.column(name)
        changed |= pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    bounds = [0, *(np.flatnonzero(changed) + 1).tolist(), batch.num_rows]
    for start, end in pairwise(bounds):
        key = tuple(batch.column(name)[start].as_py() for name in keys)
        yield key, batch.slice(start, end - start)


def remove_stale(
    lake: Lake, dataset: str, hours: Sequence[int], written: Sequence[Row], schema: pa.Schema
) -> None:
    """Remove the partitions of `hours` that a run left without rows."""
    for hour in set(hours) - _hours_of(dataset, written):
        lake.write_hour(dataset, hour_start(hour), schema.empty_table())


def remove_stale_days(
    lake: Lake, dataset: str, days: Sequence[date], written: Sequence[Row], schema: pa.Schema
) -> None:
    """Remove the partitions of `days` that a run left without rows."""
    kept = {hour_start(hour).date() for hour in _hours_of(dataset, written)}
    for day in set(days) - kept:
        lake.write_day(dataset, day, schema.empty_table())


def _hours_of(dataset: str, written: Sequence[Row]) -> set[int]:
    return {row.hour for row in written if row.dataset == dataset}
