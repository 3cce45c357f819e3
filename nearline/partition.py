"""A partition file: parquet with its manifest (rows, checksum, inputs) in the footer.

A day file may hold whole hours, one after the other. Its manifest then lists them, so that one hour
is read without the rest, and each can be written again with the bytes that it had.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nearline.errors import BadInput

_SMALL_BYTES = 1 << 20
"""Most hours are small, and written by the thousand: snappy takes them in half the time of zstd."""
_GROUP_ROWS = 122_880
"""Rows of a row group of a day: what DuckDB reads at once."""
_MANIFEST_KEY = b"nearline"


@dataclass(frozen=True)
class HourManifest:
    """One hour in a day file: its number from 0 to 23, and what its own file said of it."""

    hour: int
    rows: int
    sha256: str
    inputs: tuple[str, ...]
    compression: str


@dataclass(frozen=True)
class PartitionManifest:
    """What a partition holds: `rows`, `sha256` of its content, the names of its `inputs`.

    `hours` are those of a compacted day, oldest first; its `sha256` is made from theirs.
    """

    path: str
    rows: int
    sha256: str
    inputs: tuple[str, ...] = ()
    hours: tuple[HourManifest, ...] = ()


def write_table(fs: Any, path: str, table: pa.Table, inputs: Sequence[str]) -> PartitionManifest:
    """Replace the file at `path` by one rename; no rows remove it."""
    table = table.cast(_as_read(table.schema)).combine_chunks()
    manifest = PartitionManifest(path, table.num_rows, content_sha256(table), tuple(inputs))
    if table.num_rows == 0:
        if fs.exists(path):
            fs.rm_file(path)
        return manifest
    _write(fs, manifest, table.schema, [table], _compression(table))
    return manifest


def compact(fs: Any, path: str, hours: Mapping[int, str]) -> bool:
    """Write the day file at `path` from the files of its hours, which stay.

    False, and no file, when the hours differ in their schema.
    """
    schema, parts = None, []
    for hour, hour_path in sorted(hours.items()):
        with fs.open(hour_path, "rb") as source:
            file = pq.ParquetFile(source)
            found = _manifest(hour_path, file.metadata)
            if schema is not None and not schema.equals(file.schema_arrow):
                return False
            schema = file.schema_arrow.remove_metadata()
            codec = file.metadata.row_group(0).column(0).compression.lower()
        parts.append(HourManifest(hour, found.rows, found.sha256, found.inputs, codec))
    manifest = _day_manifest(path, parts)
    tables = (_read_file(fs, hour_path) for _, hour_path in sorted(hours.items()))
    # A writer makes a row group of each table.
    _write(fs, manifest, schema, gathered(tables, rows=_GROUP_ROWS), "zstd")
    return True


def expand(fs: Any, path: str, hour_paths: Mapping[int, str]) -> None:
    """Write the hours of the day file at `path` to files of their own, with their old bytes.

    Raises BadInput when the content of an hour is not what its checksum says.
    """
    with fs.open(path, "rb") as source:
        file = pq.ParquetFile(source)
        first = 0
        for part in _manifest(path, file.metadata).hours:
            table = _slice(file, first, part.rows, None)
            first += part.rows
            if content_sha256(table) != part.sha256:
                raise BadInput(
                    f"{path} is damaged: hour {part.hour:02d} does not match its checksum; "
                    "compute the day again from its inputs"
                )
            target = hour_paths[part.hour]
            manifest = PartitionManifest(target, part.rows, part.sha256, part.inputs)
            _write(fs, manifest, table.schema, [table], part.compression)


def drop_rows(fs: Any, path: str, dropped: Callable[[pa.Table], pa.Array]) -> None:
    """Replace a file by its rows that are not `dropped` (true for each that goes); inputs stay.

    What is left is what `write_table` and `compact` would have written of it; without rows left, no
    file. Raises BadInput for a file of another maker.
    """
    with fs.open(path, "rb") as source:
        file = pq.ParquetFile(source)
        manifest = _manifest(path, file.metadata)

        def left(first: int, rows: int) -> pa.Table:
            table = _slice(file, first, rows, None)
            return table.filter(pc.invert(dropped(table))).combine_chunks()

        if not manifest.hours:
            write_table(fs, path, left(0, manifest.rows), manifest.inputs)
            return
        spans, parts, first = [], [], 0
        for part in manifest.hours:
            table = left(first, part.rows)
            if table.num_rows:
                spans.append((first, part.rows))
                parts.append(_rewritten(part, table))
            first += part.rows
        if not parts:
            fs.rm_file(path)
            return
        tables = (left(*span) for span in spans)
        schema = file.schema_arrow.remove_metadata()
        _write(fs, _day_manifest(path, parts), schema, gathered(tables, rows=_GROUP_ROWS), "zstd")


def _rewritten(part: HourManifest, table: pa.Table) -> HourManifest:
    """What a day file says of an hour that has these rows now."""
    if part.rows == table.num_rows:
        return part
    compression = _compression(table)
    return replace(part, rows=table.num_rows, sha256=content_sha256(table), compression=compression)


def read_manifest(fs: Any, path: str) -> PartitionManifest:
    """The manifest in a file's footer. Raises BadInput for a file of another maker."""
    with fs.open(path, "rb") as source:
        return _manifest(path, pq.read_metadata(source))


def read_rows(
    source: BinaryIO, columns: Sequence[str] | None, hours: range | None = None
) -> pa.Table:
    """The rows of a file; of a compacted day only those of `hours`, where these are given."""
    file = pq.ParquetFile(source)
    parts = _manifest("", file.metadata).hours if hours is not None else ()
    if hours is None or not parts:
        return file.read(columns=columns, use_threads=False)
    first = sum(part.rows for part in parts if part.hour < hours.start)
    return _slice(file, first, sum(p.rows for p in parts if p.hour in hours), columns)


def gathered(tables: Iterable[pa.Table], *, rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of at least `rows`, each of one chunk; the last may be shorter."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(part.num_rows for part in held) >= rows:
            yield pa.concat_tables(held).combine_chunks()
            held = []
    if held:
        yield pa.concat_tables(held).combine_chunks()


def content_sha256(table: pa.Table) -> str:
    """A checksum of a table's rows and types, whatever its chunks and whatever lies below nulls.

    The rows are copied first: a slice drags along bits of its neighbours, which would be hashed.
    """
    table = table.cast(_as_read(table.schema)).combine_chunks()
    table = table.take(pa.array(np.arange(table.num_rows))).combine_chunks()
    digest = hashlib.sha256()
    with pa.ipc.new_stream(_HashSink(digest), table.schema) as writer:
        for batch in table.to_batches():
            writer.write_batch(batch)
    return digest.hexdigest()


def _write(
    fs: Any,
    manifest: PartitionManifest,
    schema: pa.Schema,
    tables: Iterable[pa.Table],
    compression: str,
) -> None:
    body = {name: value for name, value in asdict(manifest).items() if name != "path"}
    if not manifest.hours:
        del body["hours"]
    staged = f"{manifest.path}.{uuid.uuid4().hex}.tmp"
    fs.makedirs(manifest.path.rsplit("/", 1)[0], exist_ok=True)
    with (
        fs.open(staged, "wb") as out,
        pq.ParquetWriter(out, schema, compression=compression) as writer,
    ):
        for table in tables:
            writer.write_table(table)
        writer.add_key_value_metadata({_MANIFEST_KEY: json.dumps(body).encode()})
    fs.mv(staged, manifest.path)


def _as_read(schema: pa.Schema) -> pa.Schema:
    """The schema as parquet gives it back: no metadata, the values of a list named `element`."""
    return pa.schema([field.with_type(_type_as_read(field.type)) for field in schema])


def _type_as_read(kind: pa.DataType) -> pa.DataType:
    if not pa.types.is_list(kind):
        return kind
    return pa.list_(pa.field("element", _type_as_read(kind.value_type), kind.value_field.nullable))


def _compression(table: pa.Table) -> str:
    return "zstd" if table.nbytes > _SMALL_BYTES else "snappy"


def _day_manifest(path: str, hours: Sequence[HourManifest]) -> PartitionManifest:
    sha256 = hashlib.sha256("".join(part.sha256 for part in hours).encode()).hexdigest()
    return PartitionManifest(path, sum(part.rows for part in hours), sha256, (), tuple(hours))


def _manifest(path: str, metadata: pq.FileMetaData) -> PartitionManifest:
    written = metadata.metadata or {}
    if _MANIFEST_KEY not in written:
        raise BadInput(f"{path} carries no manifest: it was not written by this lake")
    body = json.loads(written[_MANIFEST_KEY])
    hours = (HourManifest(**h | {"inputs": tuple(h["inputs"])}) for h in body.get("hours", ()))
    return PartitionManifest(path, body["rows"], body["sha256"], tuple(body["inputs"]), (*hours,))


def _read_file(fs: Any, path: str) -> pa.Table:
    with fs.open(path, "rb") as source:
        return pq.ParquetFile(source).read().replace_schema_metadata(None)


def _slice(file: pq.ParquetFile, first: int, rows: int, columns: Sequence[str] | None) -> pa.Table:
    """`rows` rows from row `first` on; only the row groups that hold them are read."""
    groups, skipped, start = [], 0, 0
    for group in range(file.num_row_groups):
        end = start + file.metadata.row_group(group).num_rows
        if end <= first:
            skipped = end
        elif start < first + rows:
            groups.append(group)
        start = end
    table = file.read_row_groups(groups, columns=columns, use_threads=False)
    return table.slice(first - skipped, rows).combine_chunks().replace_schema_metadata(None)


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
