"""Where the lake keeps what is known of users, as parts that forgetting goes through one by one."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nearline import partition
from nearline.erasure import NEEDED, Since, owners
from nearline.intake.blanking import journal_files
from nearline.lake import Lake, day_of
from nearline.schema import USER_ID
from nearline.sources.landing import held_back_path
from spark_jobs.user_states import USER_STATES

_FOR_EVER = datetime(9999, 1, 1, tzinfo=UTC)


class Part(Protocol):
    """A file of a `place` with rows of users."""

    @property
    def place(self) -> str:
        """What the part is one of: a dataset of the lake, or a folder of journals."""

    @property
    def path(self) -> str:
        """What tells the part from all others."""

    def found(self, since: Since) -> dict[str, int]:
        """How many rows tell of each user of `since`, of those that any does."""

    def drop(self, since: Since) -> None:
        """Remove these rows. Killed on the way, it leaves what it found, or nothing of it."""


@dataclass(frozen=True)
class PartitionPart:
    """A partition of the lake."""

    lake: Lake
    path: str

    @property
    def place(self) -> str:
        return self.lake.dataset_of(self.path)

    def found(self, since: Since) -> dict[str, int]:
        with self.lake.fs.open(self.path, "rb") as source:
            return _found(pq.ParquetFile(source), since)

    def drop(self, since: Since) -> None:
        bucket = USER_STATES.bucket_of(self.place)
        if bucket is not None:
            there = self.lake.manifest(self.path).rows
            left = {bucket: there - sum(self.found(since).values())}
            USER_STATES.relist(self.lake, day_of(self.path), left)
        partition.drop_rows(self.lake.fs, self.path, lambda rows: pc.is_valid(owners(rows, since)))


@dataclass(frozen=True)
class HeldBack:
    """What a load kept back as traffic: it is there already, so that all of a user goes."""

    path: str
    place: str = "held_back"

    def found(self, since: Since) -> dict[str, int]:
        return _found(pq.ParquetFile(self.path), dict.fromkeys(since, _FOR_EVER))

    def drop(self, since: Since) -> None:
        rows = pq.read_table(self.path)
        kept = rows.filter(pc.is_null(owners(rows, dict.fromkeys(since, _FOR_EVER))))
        staged = f"{self.path}.tmp"
        pq.write_table(kept, staged)
        Path(staged).replace(self.path)


def all_parts(lake: Lake) -> Iterator[Part]:
    """Every part, hours before the day files that hide them: no hidden one becomes visible."""
    yield from journal_files()
    if held_back_path().exists():
        yield HeldBack(str(held_back_path()))
    paths = [path for path in lake.every_file() if path.endswith(".parquet")]
    for path in sorted(paths, key=lambda path: "/hr=" not in path):
        yield PartitionPart(lake, path)


def _found(file: pq.ParquetFile, since: Since) -> dict[str, int]:
    names = file.schema_arrow.names
    if USER_ID not in names:
        return {}
    users = file.read(columns=[USER_ID], use_threads=False)[USER_ID]
    named = pc.any(pc.is_in(users, value_set=pa.array(list(since), pa.string()))).as_py()
    if not named and not ("source" in names and users.null_count):
        return {}
    rows = file.read(columns=[name for name in NEEDED if name in names], use_threads=False)
    told = pc.value_counts(owners(rows, since).drop_null()).to_pylist()
    return {count["values"]: count["counts"] for count in told}
