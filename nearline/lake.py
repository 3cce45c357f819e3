"""The lake: one parquet file a partition, published by one rename.

`<root>/<dataset>/dt=YYYY-MM-DD/hr=HH/data.parquet` holds an hour, `…/dt=YYYY-MM-DD/data.parquet`
a day, `<root>/<dataset>/data.parquet` a snapshot. The manifest (rows, checksum, inputs) rides in
the parquet footer, so data and manifest cannot disagree, and a reader sees the old partition or
the new one. An hour without rows has no file: that it was computed is told by the ledger, one
small file for each window finished.

The hours of a day that is over may be compacted into its day file. A day file hides the hour files
of its day, so that compacting, and expanding again, may stop at any moment: each hour is told once.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from nearline import partition
from nearline.errors import BadInput, MissingPartition
from nearline.ledger import Ledger, put_json
from nearline.partition import PartitionManifest
from nearline.settings import settings
from nearline.windows import DAY, HOUR, Window, hour_floor, midnight

RAW = "raw"
EVENTS = "events"
QUARANTINE = "quarantine"
CATALOGUE = "catalogue"

_FILE = "data.parquet"
_READERS = 8
"""Files read at once: the wait is for the disk or the network."""
_PARTITION = re.compile(r"/dt=(\d{4}-\d{2}-\d{2})(?:/hr=(\d{2}))?/data\.parquet$")
_FOLDER = re.compile(r"/dt=(\d{4}-\d{2}-\d{2})$")


@dataclass(frozen=True, order=True)
class _Partition:
    """The file of an hour, or of a day where there is no `hour`."""

    day: date
    hour: int | None
    path: str

    @classmethod
    def at(cls, path: str) -> "_Partition | None":
        match = _PARTITION.search(path)
        if match is None:
            return None
        return cls(date.fromisoformat(match[1]), int(match[2]) if match[2] else None, path)

    @property
    def window(self) -> Window:
        start = midnight(self.day) + (self.hour or 0) * HOUR
        return Window(start, start + (DAY if self.hour is None else HOUR))


class Lake:
    """Reads and writes the datasets under one root, on any fsspec file system."""

    def __init__(self, root: str) -> None:
        # Others write too: a listing that was kept would be wrong.
        self.fs, path = fsspec.core.url_to_fs(root, use_listings_cache=False)
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
        return f"{self._day_folder(dataset, hour.date())}/hr={hour:%H}/{_FILE}"

    def day_path(self, dataset: str, day: date) -> str:
        """Where the partition of one UTC day lies."""
        return f"{self._day_folder(dataset, day)}/{_FILE}"

    def snapshot_path(self, dataset: str) -> str:
        """Where a dataset without partitions lies."""
        return f"{self.root}/{dataset}/{_FILE}"

    def _day_folder(self, dataset: str, day: date) -> str:
        return f"{self.root}/{dataset}/dt={day:%Y-%m-%d}"

    def files(self, dataset: str, window: Window | None = None) -> list[str]:
        """Existing partition files, oldest first; with a window, only its days are listed.

        Of a daily dataset, and of a compacted day, there is the file of each day that `window`
        touches: `read_file` takes the window's hours out of it.
        """
        return [part.path for part in self._partitions(dataset, window)]

    def every_file(self) -> list[str]:
        """The partition files of all datasets, those that a day file hides too; snapshots as well.

        What writers were killed over, before it became visible, is told too: it is no dataset's.
        """
        return [path for path in self.fs.find(self.root) if _FILE in path.rsplit("/", 1)[1]]

    def dataset_of(self, path: str) -> str:
        """The dataset that a partition file belongs to."""
        below = path.removeprefix(f"{self.root}/").rsplit("/", 1)[0]
        return below.split("/dt=", 1)[0]

    def hours(self, dataset: str, window: Window) -> list[datetime]:
        """The hours of `window` of which an hourly dataset has rows, oldest first."""
        found = [
            hour
            for part in self._partitions(dataset, window)
            for hour in (self._hours_of(part) if part.hour is None else [part.window.start])
        ]
        return [hour for hour in found if window.contains(hour)]

    def manifests(self, dataset: str, window: Window) -> dict[datetime, PartitionManifest]:
        """What the manifests say of each hour of `window` that an hourly dataset has rows of."""
        parts = self._partitions(dataset, window)
        with ThreadPoolExecutor(_READERS) as pool:
            told = list(pool.map(self.manifest, [part.path for part in parts]))
        found: dict[datetime, PartitionManifest] = {}
        for part, manifest in zip(parts, told, strict=True):
            if part.hour is not None:
                found[part.window.start] = manifest
            for each in manifest.hours:
                hour = part.window.start + each.hour * HOUR
                found[hour] = PartitionManifest(part.path, each.rows, each.sha256, each.inputs)
        return {hour: manifest for hour, manifest in found.items() if window.contains(hour)}

    def checksum(self, dataset: str, hour: datetime) -> str:
        """The checksum of an hour's rows; empty for an hour without any."""
        told = self.manifests(dataset, Window.of_hour(hour))
        return told[hour].sha256 if hour in told else ""

    def _hours_of(self, day: _Partition) -> list[datetime]:
        return [day.window.start + part.hour * HOUR for part in self.manifest(day.path).hours]

    def _partitions(self, dataset: str, window: Window | None) -> list[_Partition]:
        if window is None:
            return _visible(self._list(f"{self.root}/{dataset}"))
        return [
            part
            for day in window.days()
            for part in _visible(self._list(self._day_folder(dataset, day)))
            if part.hour is None or window.contains(part.window.start)
        ]

    def _list(self, folder: str) -> list[_Partition]:
        """Every partition file below a folder, those that a day file hides too."""
        found = (_Partition.at(path) for path in self.fs.find(folder))
        return [part for part in found if part is not None]

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
        Raises BadInput where the day is compacted: nobody would see the hour.
        """
        day = self.day_path(dataset, hour.date())
        if self.fs.exists(day):
            raise BadInput(
                f"{dataset} of {hour:%Y-%m-%dT%H}Z cannot be written, its day is compacted in "
                f"{day}: call Lake.expand first"
            )
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
        """Replace one day of a daily dataset atomically, as `write_hour` does an hour."""
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
        return partition.write_table(self.fs, path, table, inputs)

    # Days of hours

    def compact_day(self, dataset: str, day: date) -> int:
        """Put the hours of a day into its day file; returns the hour files that went.

        A day of one file stays as it is, and so does one whose hours differ in their schema. Nobody
        may write the day meanwhile; reading goes on.
        """
        path = self.day_path(dataset, day)
        parts = self._list(self._day_folder(dataset, day))
        hours = {part.hour: part.path for part in parts if part.hour is not None}
        if not any(part.hour is None for part in parts) and (
            len(hours) < 2 or not partition.compact(self.fs, path, hours)
        ):
            return 0
        self._remove_hours(hours.values())
        return len(hours)

    def expand(self, dataset: str, window: Window) -> int:
        """Turn compacted days that `window` touches into hours again, so that they can be written.

        The hours have the bytes that they had. Returns the days; 0 at little cost when none is
        compacted. One caller at a time. Raises BadInput when a day is damaged.
        """
        return sum(self._expand_day(dataset, day) for day in window.days())

    def _expand_day(self, dataset: str, day: date) -> bool:
        path = self.day_path(dataset, day)
        if not self.fs.exists(path):
            return False
        hours = {part.hour for part in self.manifest(path).hours}
        if not hours:
            return False
        start = midnight(day)
        partition.expand(
            self.fs, path, {h: self.hour_path(dataset, start + h * HOUR) for h in hours}
        )
        there = self._list(self._day_folder(dataset, day))
        self._remove_hours(part.path for part in there if part.hour not in {None, *hours})
        self.fs.rm_file(path)
        return True

    def _remove_hours(self, paths: Iterable[str]) -> None:
        for path in paths:
            self.fs.rm(path.rsplit("/", 1)[0], recursive=True)

    # Reading

    def manifest(self, path: str) -> PartitionManifest:
        """The manifest in a partition's footer. Raises BadInput for a file of another maker."""
        return partition.read_manifest(self.fs, path)

    def read(
        self,
        dataset: str,
        window: Window | None = None,
        *,
        schema: pa.Schema,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """The rows of `window` (all, without one), oldest partition first; no rows, no error."""
        return self._read(self.files(dataset, window), schema, columns, window)

    def read_snapshot(
        self, dataset: str, *, schema: pa.Schema, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """A dataset without partitions; empty when it was never written."""
        path = self.snapshot_path(dataset)
        return self._read([path] if self.fs.exists(path) else [], schema, columns, None)

    def _read(
        self,
        paths: Sequence[str],
        schema: pa.Schema,
        columns: Sequence[str] | None,
        window: Window | None,
    ) -> pa.Table:
        def read(path: str) -> pa.Table:
            return self.read_file(path, schema=schema, columns=columns, window=window)

        if not paths:
            return _wanted(schema, columns).empty_table()
        with ThreadPoolExecutor(min(_READERS, len(paths))) as pool:
            return pa.concat_tables(pool.map(read, paths))

    def read_file(
        self,
        path: str,
        *,
        schema: pa.Schema,
        columns: Sequence[str] | None = None,
        window: Window | None = None,
    ) -> pa.Table:
        """The rows of a file that `files` told of: `columns` of `schema`, all without.

        Of a compacted day only the hours of `window`, where one is given. A file that was compacted
        or expanded since it was told of is read where its rows are now. A column that a file does
        not have, as older versions wrote it, is null.
        """
        wanted = _wanted(schema, columns)
        try:
            table = self._read_part(path, wanted.names, window)
        except FileNotFoundError:
            table = self._read_moved(path, wanted.names, window)
        for field in wanted:
            if field.name not in table.column_names:
                table = table.append_column(field, pa.nulls(table.num_rows, field.type))
        return table.select(wanted.names).replace_schema_metadata(None).cast(wanted)

    def _read_part(self, path: str, names: Sequence[str], window: Window | None) -> pa.Table:
        part = _Partition.at(path)
        hours = _hours_within(window, part.day) if window and part and part.hour is None else None
        with self.fs.open(path, "rb") as source:
            return partition.read_rows(source, names, hours)

    def _read_moved(self, path: str, names: Sequence[str], window: Window | None) -> pa.Table:
        part = _Partition.at(path)
        if part is None:
            raise FileNotFoundError(path)
        folder = path.rsplit("/", 2 if part.hour is not None else 1)[0]
        if part.hour is not None:
            return self._read_part(f"{folder}/{_FILE}", names, part.window)
        hours = [p for p in self._list(folder) if window is None or window.contains(p.window.start)]
        if not hours:
            raise FileNotFoundError(path)
        return pa.concat_tables(self._read_part(p.path, names, None) for p in sorted(hours))

    # The ledger: which windows are finished

    def mark_complete(
        self, dataset: str, window: Window, *, rows: int, since: datetime | None = None
    ) -> None:
        """Record that every hour of `window` is computed, `rows` rows in all.

        `since` is the oldest hour that was written again for rows that came late, if any.
        """
        self.ledger(dataset).mark(window, rows=rows, since=since)

    def changed(self, dataset: str, window: Window) -> Window:
        """The hours that finishing `window` may have changed: those of late rows come before it.

        No row is later than `late_hours`, whatever longer windows were finished at once.
        """
        latest = window.start - settings().late_hours * HOUR
        return Window(max(self.ledger(dataset).since(window), latest), window.end)

    def ledger(self, dataset: str) -> Ledger:
        """The ledger of a dataset."""
        return Ledger(self.fs, f"{self.root}/_ledger/{dataset}")

    def covered(self, dataset: str) -> list[Window]:
        """The finished hours that are neither stale nor removed, as the fewest windows."""
        return self.ledger(dataset).covered()

    def watermark(self, dataset: str) -> datetime | None:
        """The end of the newest finished hour, if any; it may be stale."""
        computed = self.ledger(dataset).computed()
        return computed[-1].end if computed else None

    def require_complete(self, dataset: str, window: Window) -> None:
        """Raise MissingPartition unless every hour of `window` is finished."""
        if not any(done.covers(window) for done in self.covered(dataset)):
            raise MissingPartition(
                f"{dataset} is not complete for {window}: run the step that writes it for these "
                f"hours first (see `nearline status`)"
            )

    def datasets(self) -> list[str]:
        """The datasets that have a ledger."""
        paths = self.fs.find(f"{self.root}/_ledger")
        return sorted({p.split("/_ledger/", 1)[1].rsplit("/", 1)[0] for p in paths})

    # Notes

    def read_note(self, name: str) -> dict[str, Any] | None:
        """A small JSON file beside the datasets; None where it was never written."""
        path = f"{self.root}/{name}"
        if not self.fs.exists(path):
            return None
        found: dict[str, Any] = json.loads(self.fs.cat_file(path))
        return found

    def write_note(self, name: str, body: Mapping[str, Any]) -> None:
        """Write a small JSON file beside the datasets, `_…` by name, with one rename."""
        put_json(self.fs, f"{self.root}/{name}", body)

    def remove_notes(self, folder: str) -> None:
        """Remove all notes below a folder."""
        if self.fs.exists(f"{self.root}/{folder}"):
            self.fs.rm(f"{self.root}/{folder}", recursive=True)

    # Retention

    def expire(self, dataset: str, before: datetime) -> int:
        """Remove the days of a dataset that end by `before`; returns how many.

        The ledger tells first: from then on `require_kept` refuses to read there.
        """
        edge = midnight(before.date())
        days = [path for path in self._day_folders(dataset) if day_of(path) < edge.date()]
        if days:
            self.ledger(dataset).expire(edge)
        for path in days:
            self.fs.rm(path, recursive=True)
        return len(days)

    def require_kept(self, dataset: str, window: Window) -> None:
        """Raise MissingPartition when hours of `window` were removed because of their age.

        For steps that reach back: what is missing there would make their result wrong in silence.
        """
        expired = self.ledger(dataset).expired()
        if expired is not None and window.start < expired:
            layer = dataset.split("/", 1)[0].upper()
            raise MissingPartition(
                f"{dataset} is needed for {window}, but its days before {expired:%Y-%m-%d} were "
                f"removed for their age: begin later, or keep more (NEARLINE_KEEP_{layer}_DAYS)"
            )

    def _day_folders(self, dataset: str) -> list[str]:
        try:
            names = self.fs.ls(f"{self.root}/{dataset}", detail=False)
        except FileNotFoundError:
            return []
        return [path for path in (name.rstrip("/") for name in names) if _FOLDER.search(path)]


def _visible(parts: Sequence[_Partition]) -> list[_Partition]:
    """The partitions that readers see, oldest first: a day file hides its hours."""
    whole = {part.day for part in parts if part.hour is None}
    seen = [part for part in parts if part.hour is None or part.day not in whole]
    return sorted(seen, key=lambda part: part.window)


def _hours_within(window: Window, day: date) -> range:
    """The hours of a day, 0 to 23, that lie in `window`."""
    start = midnight(day)
    first, end = (round((ts - start) / HOUR) for ts in (window.start, window.end))
    return range(max(first, 0), max(0, min(end, 24)))


def _wanted(schema: pa.Schema, columns: Sequence[str] | None) -> pa.Schema:
    return pa.schema([schema.field(name) for name in columns or schema.names])


def day_of(path: str) -> date:
    """The UTC day that a partition's file or folder belongs to."""
    return date.fromisoformat(path.rsplit("/dt=", 1)[1][:10])


def hour_groups(table: pa.Table, column: str) -> Iterator[tuple[datetime, pa.Table]]:
    """Split rows by the UTC hour of a timestamp column, oldest hour first; order is kept within."""
    table = table.take(pc.sort_indices(pc.floor_temporal(table[column], unit="hour")))
    hours = pc.floor_temporal(table[column], unit="hour")
    for run in pc.value_counts(hours):
        hour, rows = run["values"].as_py(), run["counts"].as_py()
        yield hour, table.slice(0, rows)
        table = table.slice(rows)
