"""The lake: one parquet file a partition, published by one rename.

`<root>/<dataset>/dt=YYYY-MM-DD/hr=HH/data.parquet` holds an hour, `…/dt=YYYY-MM-DD/data.parquet`
a day, `<root>/<dataset>/data.parquet` a snapshot. The manifest (rows, checksum, inputs) rides in
the parquet footer, so data and manifest cannot disagree, and a reader sees the old partition or
the new one. An hour without rows has no file: that it was computed is told by the ledger, one
small file for each window finished.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nearline.errors import BadInput, MissingPartition
from nearline.settings import settings
from nearline.windows import Window, hour_floor, merge

RAW = "raw"
EVENTS = "events"
QUARANTINE = "quarantine"
CATALOGUE = "catalogue"

_FILE = "data.parquet"
_SHORT = timedelta(days=7)
_SMALL_BYTES = 1 << 20
"""Most hours are small, and written by the thousand: snappy takes them in half the time of zstd."""
_MANIFEST_KEY = b"nearline"
_PARTITION = re.compile(r"dt=(\d{4}-\d{2}-\d{2})(?:/hr=(\d{2}))?/data\.parquet$")


@dataclass(frozen=True)
class PartitionManifest:
    """What a partition holds: `rows`, `sha256` of its content, and the names of its `inputs`."""

    path: str
    rows: int
    sha256: str
    inputs: tuple[str, ...] = ()


class Lake:
    """Reads and writes the datasets under one root, on any fsspec file system."""

    def __init__(self, root: str) -> None:
        self.fs, path = fsspec.core.url_to_fs(root)
        self.root = path.rstrip("/")

    @classmethod
    def open(cls) -> "Lake":
        """The lake that the settings name."""
        return cls(settings().lake)

    # Paths

    def hour_path(self, dataset: str, hour: datetime) -> str:
        """Where the partition of one UTC hour lies."""
        if hour_floor(hour) != hour:
            raise BadInput(f"{hour.isoformat()} is not a whole hour")
        return f"{self.root}/{dataset}/dt={hour:%Y-%m-%d}/hr={hour:%H}/{_FILE}"

    def day_path(self, dataset: str, day: date) -> str:
        """Where the partition of one UTC day lies."""
        return f"{self.root}/{dataset}/dt={day:%Y-%m-%d}/{_FILE}"

    def snapshot_path(self, dataset: str) -> str:
        """Where a dataset without partitions lies."""
        return f"{self.root}/{dataset}/{_FILE}"

    def files(self, dataset: str, window: Window | None = None) -> list[str]:
        """Existing partition files, oldest first; of a daily dataset, each day `window` touches."""
        found: list[tuple[datetime, str]] = []
        for path in self._candidates(dataset, window):
            match = _PARTITION.search(path)
            if match is None:
                continue
            day, hr = match.groups()
            start = datetime.fromisoformat(day).replace(hour=int(hr or 0), tzinfo=UTC)
            first = window and (window.start if hr else window.start.replace(hour=0))
            if window is None or (first and first <= start < window.end):
                found.append((start, str(path)))
        return [path for _, path in sorted(found)]

    def _candidates(self, dataset: str, window: Window | None) -> Iterator[str]:
        """Files that may lie in `window`: a short one looks only into the folders of its days."""
        short = window is not None and window.end - window.start <= _SHORT
        days = [f"{day:%Y-%m-%d}" for day in window.days()] if window and short else ["*"]
        for day in days:
            yield from self.fs.glob(f"{self.root}/{dataset}/dt={day}/{_FILE}")
            yield from self.fs.glob(f"{self.root}/{dataset}/dt={day}/hr=*/{_FILE}")

    # Writing

    def write_hour(
        self,
        dataset: str,
        hour: datetime,
        table: pa.Table,
        *,
        inputs: Sequence[str] = (),
        sort_by: Sequence[str] = (),
    ) -> PartitionManifest:
        """Replace one hour atomically; the same rows give the same bytes.

        Rows are ordered by `sort_by`, which should name a key. An empty table removes the hour.
        """
        return self._write(self.hour_path(dataset, hour), table, inputs, sort_by)

    def write_day(
        self,
        dataset: str,
        day: date,
        table: pa.Table,
        *,
        inputs: Sequence[str] = (),
        sort_by: Sequence[str] = (),
    ) -> PartitionManifest:
        """Replace one day atomically, as `write_hour` does an hour."""
        return self._write(self.day_path(dataset, day), table, inputs, sort_by)

    def write_snapshot(
        self,
        dataset: str,
        table: pa.Table,
        *,
        inputs: Sequence[str] = (),
        sort_by: Sequence[str] = (),
    ) -> PartitionManifest:
        """Replace a dataset without partitions atomically."""
        return self._write(self.snapshot_path(dataset), table, inputs, sort_by)

    def _write(
        self, path: str, table: pa.Table, inputs: Sequence[str], sort_by: Sequence[str]
    ) -> PartitionManifest:
        if sort_by:
            table = table.sort_by([(name, "ascending") for name in sort_by])
        table = table.combine_chunks().replace_schema_metadata(None)
        manifest = PartitionManifest(path, table.num_rows, content_sha256(table), tuple(inputs))
        if table.num_rows == 0:
            if self.fs.exists(path):
                self.fs.rm_file(path)
            return manifest
        body = {"rows": manifest.rows, "sha256": manifest.sha256, "inputs": manifest.inputs}
        compression = "zstd" if table.nbytes > _SMALL_BYTES else "snappy"
        staged = f"{path}.{os.getpid()}.tmp"
        self.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        with (
            self.fs.open(staged, "wb") as out,
            pq.ParquetWriter(out, table.schema, compression=compression) as writer,
        ):
            writer.write_table(table)
            writer.add_key_value_metadata({_MANIFEST_KEY: json.dumps(body).encode()})
        self.fs.mv(staged, path)
        return manifest

    # Reading

    def manifest(self, path: str) -> PartitionManifest:
        """The manifest in a partition's footer. Raises BadInput for a file of another maker."""
        with self.fs.open(path, "rb") as source:
            metadata = pq.read_metadata(source).metadata or {}
        if _MANIFEST_KEY not in metadata:
            raise BadInput(f"{path} carries no manifest: it was not written by this lake")
        body = json.loads(metadata[_MANIFEST_KEY])
        return PartitionManifest(path, body["rows"], body["sha256"], tuple(body["inputs"]))

    def read(
        self,
        dataset: str,
        window: Window | None = None,
        *,
        schema: pa.Schema,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """The rows of `window` (all, without one), oldest partition first; no rows, no error."""
        return self._read(self.files(dataset, window), schema, columns)

    def read_snapshot(self, dataset: str, *, schema: pa.Schema) -> pa.Table:
        """A dataset without partitions; empty when it was never written."""
        path = self.snapshot_path(dataset)
        return self._read([path] if self.fs.exists(path) else [], schema, None)

    def _read(
        self, paths: Sequence[str], schema: pa.Schema, columns: Sequence[str] | None
    ) -> pa.Table:
        names = list(columns) if columns is not None else schema.names
        wanted = pa.schema([schema.field(name) for name in names])
        tables = [
            pq.read_table(path, columns=names, filesystem=self.fs, partitioning=None)
            for path in paths
        ]
        if not tables:
            return wanted.empty_table()
        return pa.concat_tables(t.replace_schema_metadata(None).cast(wanted) for t in tables)

    # The ledger: which windows are finished

    def mark_complete(
        self, dataset: str, window: Window, *, rows: int, since: datetime | None = None
    ) -> None:
        """Record that every hour of `window` is computed, `rows` rows in all.

        `since` is the oldest hour that was written again for rows that came late, if any.
        """
        path = self._ledger_path(dataset, window)
        self.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        entry = {
            "start": window.start.isoformat(),
            "end": window.end.isoformat(),
            "rows": rows,
        }
        if since is not None and since < window.start:
            entry["since"] = since.isoformat()
        with self.fs.open(f"{path}.tmp", "w") as out:
            json.dump(entry, out)
        self.fs.mv(f"{path}.tmp", path)

    def changed(self, dataset: str, window: Window) -> Window:
        """The hours that finishing `window` may have changed: those of late rows come before it."""
        path = self._ledger_path(dataset, window)
        if not self.fs.exists(path):
            return window
        entry = json.loads(self.fs.cat_file(path))
        return Window.parse(entry.get("since", entry["start"]), entry["end"])

    def _ledger_path(self, dataset: str, window: Window) -> str:
        name = f"{window.start:%Y%m%dT%H}_{window.end:%Y%m%dT%H}.json"
        return f"{self.root}/_ledger/{dataset}/{name}"

    def ledger(self, dataset: str) -> list[dict[str, Any]]:
        """Every finished window of a dataset, oldest first, with its rows."""
        paths = sorted(self.fs.glob(f"{self.root}/_ledger/{dataset}/*.json"))
        return [json.loads(self.fs.cat_file(path)) for path in paths]

    def covered(self, dataset: str) -> list[Window]:
        """The finished hours, as the fewest windows."""
        return merge(Window.parse(e["start"], e["end"]) for e in self.ledger(dataset))

    def watermark(self, dataset: str) -> datetime | None:
        """The end of the newest finished hour, if any."""
        covered = self.covered(dataset)
        return covered[-1].end if covered else None

    def gaps(self, dataset: str) -> list[Window]:
        """The hours between finished ones that were never computed."""
        covered = self.covered(dataset)
        return [Window(a.end, b.start) for a, b in pairwise(covered)]

    def require_complete(self, dataset: str, window: Window) -> None:
        """Raise MissingPartition unless every hour of `window` is finished."""
        if not any(done.covers(window) for done in self.covered(dataset)):
            raise MissingPartition(
                f"{dataset} is not complete for {window}: run the step that writes it for these "
                f"hours first (see `nearline status`)"
            )

    def datasets(self) -> list[str]:
        """The datasets that have a ledger."""
        paths = self.fs.glob(f"{self.root}/_ledger/**/*.json")
        return sorted({p.split("/_ledger/", 1)[1].rsplit("/", 1)[0] for p in paths})


def content_sha256(table: pa.Table) -> str:
    """A checksum of a table's rows and types, whatever its chunks.

    The rows are copied first: a slice drags along bits of its neighbours, which would be hashed.
    """
    table = table.combine_chunks().take(pa.array(np.arange(table.num_rows)))
    digest = hashlib.sha256()
    with pa.ipc.new_stream(_HashSink(digest), table.schema.remove_metadata()) as writer:
        for batch in table.combine_chunks().to_batches():
            writer.write_batch(batch)
    return digest.hexdigest()


class _HashSink:
    """A file that keeps a hash of what is written to it, and nothing else."""

    closed = False

    def __init__(self, digest: Any) -> None:
        self._digest = digest

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return len(data)

    def flush(self) -> None: ...

    def close(self) -> None:
        self.closed = True


def hour_groups(table: pa.Table, column: str) -> Iterator[tuple[datetime, pa.Table]]:
    """Split rows by the UTC hour of a timestamp column, oldest hour first; order is kept within."""
    table = table.take(pc.sort_indices(pc.floor_temporal(table[column], unit="hour")))
    hours = pc.floor_temporal(table[column], unit="hour")
    for run in pc.value_counts(hours):
        hour, rows = run["values"].as_py(), run["counts"].as_py()
        yield hour, table.slice(0, rows)
        table = table.slice(rows)
