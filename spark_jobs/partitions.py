"""Lake partitions as Spark frames, and Spark groups as lake partitions.

Thousands of small files are read by Python workers through the lake itself: no listing, no job
for each file, any fsspec path (2,500 files: 1.2 s instead of 11 s by Spark's own reader). Hours
travel through Spark as whole numbers: hours since 1970.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from nearline.lake import Lake

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BATCH_ROWS = 50_000
TASKS_PER_SLOT = 2

WRITTEN = pa.schema(
    [("dataset", pa.string()), ("hour", pa.int64()), ("part", pa.string()), ("rows", pa.int64())]
)
"""What a writer reports: `rows` of a dataset's hour; `part` names a share of them, or is null."""


def epoch_hour(ts: datetime) -> int:
    """Whole hours since 1970."""
    return (ts - EPOCH) // timedelta(hours=1)


def hour_start(hour: int) -> datetime:
    """The time at which an epoch hour begins."""
    return EPOCH + timedelta(hours=hour)


def read_files(
    spark: SparkSession,
    lake: Lake,
    files: Sequence[str],
    schema: pa.Schema,
    columns: Sequence[str] | None = None,
) -> DataFrame:
    """The rows of partition files, in no order; `columns` of `schema`, all without."""
    wanted = pa.schema([schema.field(name) for name in columns or schema.names])
    fs, paths = lake.fs, list(files)

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        held: list[pa.Table] = []
        for batch in batches:
            for index in batch.column(0).to_pylist():
                with fs.open(paths[index], "rb") as source:
                    rows = pq.ParquetFile(source).read(columns=wanted.names, use_threads=False)
                held.append(rows.select(wanted.names).replace_schema_metadata(None).cast(wanted))
                if sum(table.num_rows for table in held) >= BATCH_ROWS:
                    yield from pa.concat_tables(held).combine_chunks().to_batches()
                    held = []
        if held:
            yield from pa.concat_tables(held).combine_chunks().to_batches()

    slots = spark.sparkContext.defaultParallelism * TASKS_PER_SLOT
    tasks = max(1, min(len(paths), slots))
    return spark.range(0, len(paths), 1, tasks).mapInArrow(read, from_arrow_schema(wanted))


def write_groups(
    frame: DataFrame, keys: Sequence[str], write: Callable[[tuple, pa.Table], list[tuple]]
) -> list[Row]:
    """Hand each group to `write` in a Python worker; gather the rows of WRITTEN it returns."""

    def apply(key: tuple[pa.Scalar, ...], table: pa.Table) -> pa.Table:
        rows = write(tuple(part.as_py() for part in key), table)
        return pa.Table.from_pylist(
            [dict(zip(WRITTEN.names, row, strict=True)) for row in rows], schema=WRITTEN
        )

    return frame.groupBy(*keys).applyInArrow(apply, from_arrow_schema(WRITTEN)).collect()


def remove_stale(
    lake: Lake, dataset: str, hours: Sequence[int], written: Sequence[Row], schema: pa.Schema
) -> None:
    """Remove the partitions of `hours` that a run left without rows."""
    kept = {row.hour for row in written if row.dataset == dataset}
    for hour in set(hours) - kept:
        lake.write_hour(dataset, hour_start(hour), schema.empty_table())
