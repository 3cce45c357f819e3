"""States: what a long row of days adds up to, so that no run reads all those days again.

A state of day X sums up the days before X, and gives what the days themselves would give. It is
made of an older one and the days since; it is written once no late event can change the days before
it, and removed when such a day is written again all the same: a gap that is filled, a window that
is run anew.

Its rows lie in BUCKETS datasets, `<dataset>_rows/00` and on: nobody need hold them all. The
partition of `<dataset>` itself lists the buckets: it is written last and removed first, and without
it there is no state.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from zlib import crc32

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from nearline.lake import Lake, day_of
from nearline.settings import settings
from nearline.windows import HOUR, Window
from spark_jobs.partitions import write_groups

BUCKETS = 32
KEPT_STATES = 3
"""The newest state serves the schedule; the others serve who runs the last days again."""

LIST_SCHEMA = pa.schema([("bucket", pa.int64()), ("rows", pa.int64())])
"""One row for each bucket that has rows."""


def settled_day(end: datetime) -> date:
    """The newest day that arrivals from `end` on can no longer change the days before."""
    return (end - settings().late_hours * HOUR).date()


@dataclass(frozen=True)
class States:
    """The states in one dataset: rows of `schema`, told apart and ordered by `order`.

    The first of `order` names the column of text that tells a row's bucket.
    """

    dataset: str
    schema: pa.Schema
    order: tuple[str, ...]

    def days(self, lake: Lake) -> list[date]:
        """The days that have a state, oldest first."""
        return [day_of(path) for path in lake.files(self.dataset)]

    def newest(self, lake: Lake, *, after: date, until: date) -> date | None:
        """The newest state later than one day and no later than the other, if any."""
        return max((day for day in self.days(lake) if after < day <= until), default=None)

    def is_due(self, lake: Lake, day: date) -> bool:
        """Whether a state of `day` would be the newest."""
        return day > max(self.days(lake), default=date.min)

    def files(self, lake: Lake, day: date, keys: pa.Array | None = None) -> list[str]:
        """The files of a state; only those that can hold any of `keys`, if given."""
        listed = lake.read(self.dataset, Window.of_days(day, day), schema=LIST_SCHEMA)
        buckets = set(listed["bucket"].to_pylist())
        if keys is not None:
            buckets &= {crc32(key.encode()) % BUCKETS for key in keys.to_pylist()}
        return [lake.day_path(self.bucket_name(bucket), day) for bucket in sorted(buckets)]

    def write(self, lake: Lake, rows: DataFrame, day: date) -> None:
        """Write the state of `day`, and keep only the newest KEPT_STATES."""

        def write(key: tuple, table: pa.Table) -> list[tuple]:
            table = table.select(self.schema.names).cast(self.schema)
            lake.write_day(self.bucket_name(key[0]), day, table, sort_by=self.order)
            return [(self.dataset, key[0], None, table.num_rows)]

        bucket = F.crc32(F.col(self.order[0]).cast("binary")) % BUCKETS
        written = write_groups(rows.withColumn("bucket", bucket), ["bucket"], write)
        self._list(lake, day, {share.hour: share.rows for share in written})
        self.remove(lake, self.days(lake)[:-KEPT_STATES])

    def relist(self, lake: Lake, day: date, left: Mapping[int, int]) -> None:
        """List what is about to be `left` of buckets; one without rows will have no file."""
        listed = lake.read(self.dataset, Window.of_days(day, day), schema=LIST_SCHEMA).to_pylist()
        self._list(lake, day, {r["bucket"]: left.get(r["bucket"], r["rows"]) for r in listed})

    def _list(self, lake: Lake, day: date, rows: Mapping[int, int]) -> None:
        listed = [{"bucket": bucket, "rows": count} for bucket, count in rows.items() if count]
        table = pa.Table.from_pylist(listed, schema=LIST_SCHEMA)
        lake.write_day(self.dataset, day, table, sort_by=["bucket"])

    def remove_later(self, lake: Lake, day: date) -> None:
        """Remove the states that sum up `day`, which is about to change."""
        self.remove(lake, [state for state in self.days(lake) if state > day])

    def remove(self, lake: Lake, days: Sequence[date]) -> None:
        """Remove states: first what makes them ones."""
        for day in days:
            lake.write_day(self.dataset, day, LIST_SCHEMA.empty_table())
            for bucket in range(BUCKETS):
                lake.write_day(self.bucket_name(bucket), day, self.schema.empty_table())

    def bucket_name(self, bucket: int) -> str:
        """The dataset of one bucket."""
        return f"{self.dataset}_rows/{bucket:02}"

    def bucket_of(self, dataset: str) -> int | None:
        """The bucket that a dataset is; None for any other dataset. The inverse of the name."""
        prefix = f"{self.dataset}_rows/"
        return int(dataset.removeprefix(prefix)) if dataset.startswith(prefix) else None
