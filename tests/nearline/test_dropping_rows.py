"""A partition without some of its rows is what its step would have written of the others."""

from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from nearline import partition
from nearline.errors import BadInput
from nearline.lake import Lake
from nearline.partition import content_sha256
from nearline.windows import HOUR, Window

DAY = date(2026, 1, 2)
T0 = datetime(2026, 1, 2, tzinfo=UTC)
SCHEMA = pa.schema([("user", pa.string()), ("ids", pa.list_(pa.string())), ("n", pa.int64())])
ANN, EVERYBODY = {"ann"}, {"ann", "bob"}


def rows(hour: int, without: set[str]) -> pa.Table:
    """Rows of two users, of bob only in every other hour."""
    users = ["ann", "bob", "ann"] if hour % 2 else ["ann"]
    kept = [(u, [u] * n or None, n) for n, u in enumerate(users) if u not in without]
    return pa.Table.from_pylist(
        [dict(zip(SCHEMA.names, r, strict=True)) for r in kept], schema=SCHEMA
    )


def written(root: Path, hours: int, without: set[str], *, compacted: bool) -> Lake:
    lake = Lake(str(root))
    for hour in range(hours):
        lake.write_hour("x", T0 + hour * HOUR, rows(hour, without), inputs=[f"raw/{hour}"])
    if compacted:
        lake.compact_day("x", DAY)
    return lake


def drop(lake: Lake, users: set[str]) -> None:
    gone = pa.array(sorted(users), pa.string())
    for path in lake.every_file():
        partition.drop_rows(lake.fs, path, lambda t: pc.is_in(t["user"], value_set=gone))


def files(lake: Lake) -> dict[str, bytes]:
    root = Path(lake.root)
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("without", [set(), ANN, EVERYBODY], ids=["nobody", "ann", "all"])
@pytest.mark.parametrize("compacted", [False, True])
def test_what_is_left_is_what_would_have_been_written(
    tmp_path: Path, without: set[str], compacted: bool
) -> None:
    expected = written(tmp_path / "expected", 8, without, compacted=compacted)
    lake = written(tmp_path / "lake", 8, set(), compacted=compacted)
    drop(lake, without)
    assert files(lake) == files(expected)
    drop(lake, without)
    assert files(lake) == files(expected)


def test_an_hour_of_a_day_file_is_told_and_expanded_as_it_is_now(tmp_path: Path) -> None:
    lake = written(tmp_path, 8, set(), compacted=True)
    drop(lake, ANN)
    day = Window.of_days(DAY, DAY)
    told = lake.manifests("x", day)
    assert [hour.hour for hour in told] == [1, 3, 5, 7]
    for hour, manifest in told.items():
        table = lake.read("x", Window.of_hour(hour), schema=SCHEMA)
        assert (manifest.rows, manifest.sha256) == (table.num_rows, content_sha256(table))
        assert manifest.inputs == (f"raw/{hour.hour}",)
    lake.expand("x", day)
    assert lake.manifests("x", day).keys() == told.keys()


def test_a_file_of_another_maker_is_left_alone(tmp_path: Path) -> None:
    lake = written(tmp_path, 1, set(), compacted=False)
    pa.parquet.write_table(rows(1, set()), lake.hour_path("x", T0))
    with pytest.raises(BadInput, match="carries no manifest"):
        drop(lake, ANN)
