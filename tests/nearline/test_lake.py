from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nearline.errors import BadInput, MissingPartition
from nearline.lake import Lake, hour_groups
from nearline.partition import content_sha256
from nearline.windows import Window

HOUR = timedelta(hours=1)
T0 = datetime(2026, 1, 1, 22, tzinfo=UTC)
ROWS = pa.table({"id": ["b", "a"], "n": [2, 1]})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def test_a_re_run_gives_the_same_bytes_whatever_the_order(lake: Lake) -> None:
    path = Path(lake.write_hour("x", T0, ROWS, sort_by=["id"]).path)
    first = path.read_bytes()
    lake.write_hour("x", T0, ROWS.take([1, 0]), sort_by=["id"])
    assert path.read_bytes() == first


def test_the_manifest_rides_in_the_file(lake: Lake) -> None:
    written = lake.write_hour("x", T0, ROWS, sort_by=["id"], inputs=["raw/1"])
    read = lake.manifest(written.path)
    assert read == written
    assert (read.rows, read.inputs) == (2, ("raw/1",))
    assert read.sha256 == content_sha256(lake.read("x", schema=ROWS.schema))


def test_the_checksum_of_a_slice_is_that_of_its_rows() -> None:
    lists = pa.table(
        {"ids": [["a"], None, ["b", "c"], ["d"], None, ["e"]], "n": [1, 2, 3, 4, 5, 6]}
    )
    part = lists.slice(2, 3)
    assert content_sha256(part) == content_sha256(pa.Table.from_pylist(part.to_pylist()))


def test_a_foreign_file_has_no_manifest(lake: Lake, tmp_path: Path) -> None:
    pq.write_table(ROWS, tmp_path / "other.parquet")
    with pytest.raises(BadInput, match="no manifest"):
        lake.manifest(str(tmp_path / "other.parquet"))


def test_an_hour_that_became_empty_is_removed(lake: Lake) -> None:
    lake.write_hour("x", T0, ROWS)
    lake.write_hour("x", T0, ROWS.slice(0, 0))
    assert lake.files("x") == []


def test_a_writer_that_dies_leaves_the_old_hour(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.write_hour("x", T0, ROWS, sort_by=["id"])
    monkeypatch.setattr(lake.fs, "mv", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        lake.write_hour("x", T0, ROWS.slice(0, 1))
    assert lake.read("x", schema=ROWS.schema).num_rows == 2


def test_a_column_that_a_file_lacks_is_null(lake: Lake) -> None:
    lake.write_hour("old", T0, pa.table({"item_id": ["a"]}))
    schema = pa.schema([("arm", pa.string()), ("item_id", pa.string())])
    assert lake.read("old", schema=schema).to_pylist() == [{"arm": None, "item_id": "a"}]


def test_reading_keeps_to_the_window(lake: Lake) -> None:
    for i in range(4):
        lake.write_hour("x", T0 + i * HOUR, pa.table({"id": [str(i)], "n": [i]}))
    window = Window(T0 + HOUR, T0 + 3 * HOUR)
    assert lake.read("x", window, schema=ROWS.schema)["n"].to_pylist() == [1, 2]
    assert lake.read("x", schema=ROWS.schema, columns=["n"])["n"].to_pylist() == [0, 1, 2, 3]
    assert lake.read("nothing", window, schema=ROWS.schema).num_rows == 0


def test_daily_partitions_are_found_by_any_hour_of_their_day(lake: Lake) -> None:
    lake.write_day("d", T0.date(), ROWS)
    assert len(lake.files("d", Window(T0, T0 + HOUR))) == 1
    assert lake.files("d", Window(T0 + 2 * HOUR, T0 + 3 * HOUR)) == []


def test_the_ledger_knows_what_is_finished_and_what_is_missing(lake: Lake) -> None:
    early, late = Window(T0, T0 + 2 * HOUR), Window(T0 + 3 * HOUR, T0 + 4 * HOUR)
    assert lake.watermark("x") is None
    lake.mark_complete("x", early, rows=0)
    lake.mark_complete("x", late, rows=7)
    assert lake.watermark("x") == late.end
    assert lake.ledger("x").gaps() == [Window(early.end, late.start)]
    lake.require_complete("x", Window(T0 + HOUR, T0 + 2 * HOUR))
    with pytest.raises(MissingPartition, match="x is not complete"):
        lake.require_complete("x", Window(T0, late.end))


def test_snapshots_are_replaced_whole(lake: Lake) -> None:
    lake.write_snapshot("catalogue", ROWS, sort_by=["id"])
    lake.write_snapshot("catalogue", ROWS.slice(0, 1))
    assert lake.read_snapshot("catalogue", schema=ROWS.schema)["id"].to_pylist() == ["b"]


def test_hour_groups_split_by_utc_hour() -> None:
    times = pa.array([T0 + HOUR, T0, T0 + timedelta(minutes=5)], pa.timestamp("us", tz="UTC"))
    groups = dict(hour_groups(pa.table({"ts": times, "n": [1, 2, 3]}), "ts"))
    assert {h: t["n"].to_pylist() for h, t in groups.items()} == {T0: [2, 3], T0 + HOUR: [1]}
