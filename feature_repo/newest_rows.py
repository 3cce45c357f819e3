"""The newest row of each key in a window of the lake, in batches of bounded size.

Two passes, and neither holds the window in memory: the first keeps a time for each key, the second
reads the rows of those times. Where DuckDB's share of memory is too small it spills to disk. The
order is always the same, so that a run that was interrupted can go on from a position.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import duckdb
import pyarrow as pa
from feast import FeatureView

from feature_repo.partitions import dataset_of, open_duckdb, partition_files
from nearline.errors import BadInput
from nearline.lake import Lake
from nearline.schema import FEATURE_TS

_MEMORY = "256MB"
_ROWS_PER_QUERY = 100_000
_POSITION = "_position"


@dataclass(frozen=True)
class NewestRows:
    """The newest row of each key of `view` with a feature_ts in `[start, end]`."""

    view: FeatureView
    start: datetime
    end: datetime

    @property
    def key(self) -> str:
        """The view's join key. Raises BadInput when it has not exactly one."""
        if len(self.view.join_keys) != 1:
            raise BadInput(f"view {self.view.name} has keys {self.view.join_keys}: it needs one")
        return str(self.view.join_keys[0])

    def fingerprint(self) -> str:
        """Tells this range of exactly these files from any other, and from files written anew."""
        lake = Lake.open()
        digest = hashlib.sha256(f"{self.start.isoformat()} {self.end.isoformat()}".encode())
        for path in self._files(self.start, self.end):
            digest.update(f"{path} {lake.fs.ukey(path)}".encode())
        return digest.hexdigest()

    def batches(self, *, size: int, skip: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        """At most `size` rows at once, newest hour first, with the position after each batch.

        The first `skip` rows are left out. Columns: the key, the view's features, feature_ts.
        """
        files = self._files(self.start, self.end)
        if not files:
            return
        with open_duckdb(memory_limit=_MEMORY) as db:
            rows = self._rank(db, files)
            for first in range(skip, rows, _ROWS_PER_QUERY):
                for batch in self._read(db, first, first + _ROWS_PER_QUERY).to_arrow_reader(size):
                    yield batch[_POSITION][-1].as_py() + 1, batch.drop_columns([_POSITION])

    def _rank(self, db: duckdb.DuckDBPyConnection, files: list[str]) -> int:
        """Number the newest time of each key; keys as Feast's bytes are ordered, by length first.

        Neighbours in the store are then written together.
        """
        db.execute(
            f"""
            create temp table ranked as
            select
                *,
                row_number() over (order by {FEATURE_TS} desc, strlen(key), key) - 1 as position
            from (
                select "{self.key}" as key, max({FEATURE_TS}) as {FEATURE_TS}
                from read_parquet($files, hive_partitioning = false)
                where {FEATURE_TS} between $start and $end
                group by key
            )
            """,
            {"files": files, "start": self.start, "end": self.end},
        )
        return int(db.sql("select count(*) from ranked").fetchall()[0][0])

    def _read(
        self, db: duckdb.DuckDBPyConnection, first: int, after: int
    ) -> duckdb.DuckDBPyRelation:
        span = {"first": first, "after": after}
        where = "position >= $first and position < $after"
        [(oldest, newest)] = db.sql(
            f"select min({FEATURE_TS}), max({FEATURE_TS}) from ranked where {where}", params=span
        ).fetchall()
        names = [self.key, *(feature.name for feature in self.view.features), FEATURE_TS]
        columns = ", ".join(f'features."{name}"' for name in names)
        return db.sql(
            f"""
            select {columns}, position as {_POSITION}
            from read_parquet($files, hive_partitioning = false) as features
            inner join ranked
                on features."{self.key}" = ranked.key
                and features.{FEATURE_TS} = ranked.{FEATURE_TS}
            where {where}
            order by position
            """,
            params=span | {"files": self._files(oldest, newest)},
        )

    def _files(self, start: datetime, end: datetime) -> list[str]:
        return partition_files(Lake.open(), dataset_of(self.view.batch_source), start, end)
