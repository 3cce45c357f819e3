"""Days of hours: told the same to readers, and the same bytes again, whatever is interrupted."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from nearline.errors import BadInput
from nearline.lake import Lake
from nearline.windows import HOUR, Window

DAY = date(2026, 1, 2)
T0 = datetime(2026, 1, 2, tzinfo=UTC)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("ids", pa.list_(pa.string())),
        ("value", pa.float64()),
        ("amount", pa.decimal128(24, 6)),
        ("ts", pa.timestamp("us", tz="UTC")),
    ]
)
NEIGHBOURS = Window(T0 - HOUR, T0 + 26 * HOUR)
HOURS = (0, 3, 4, 23)


def rows(hour: int) -> pa.Table:
    """Some rows with nulls and lists."""
    count = hour + 1
    return pa.table(
        [
            pa.array([f"{hour}-{n % 1000}" for n in range(count)]),
            pa.array([None if n % 3 == 0 else ["a"] * (n % 3) for n in range(count)]),
            pa.array([None if n % 2 else n / 7 for n in range(count)], pa.float64()),
            pa.array([Decimal(n) for n in range(count)], pa.decimal128(24, 6)),
            pa.array([T0 + hour * HOUR] * count, SCHEMA.field("ts").type),
        ],
        schema=SCHEMA,
    )


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """Four hours of a day, in row groups of a few rows, and an hour on either side of it."""
    monkeypatch.setattr("nearline.partition._GROUP_ROWS", 4)
    lake = Lake(str(tmp_path))
    for hour in HOURS:
        lake.write_hour("x", T0 + hour * HOUR, rows(hour), inputs=[f"raw/{hour}"])
    for hour in (-1, 25):
        lake.write_hour("x", T0 + hour * HOUR, rows(1))
    return lake


def files(lake: Lake) -> dict[str, bytes]:
    root = Path(lake.root)
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.parquet")}


def answers(lake: Lake) -> Any:
    """What readers are told: rows of any windows, and which hours there are."""
    windows = [NEIGHBOURS, Window(T0, T0 + 4 * HOUR), Window(T0 + 4 * HOUR, T0 + 24 * HOUR)]
    return [
        (
            lake.read("x", window, schema=SCHEMA),
            lake.hours("x", window),
            {
                hour: (manifest.rows, manifest.sha256, manifest.inputs)
                for hour, manifest in lake.manifests("x", window).items()
            },
        )
        for window in windows
    ]


def test_a_compacted_day_is_one_file_that_tells_the_same(lake: Lake) -> None:
    before = answers(lake)
    assert lake.compact_day("x", DAY) == 4
    assert answers(lake) == before
    assert lake.files("x", Window(T0 + 5 * HOUR, T0 + 6 * HOUR)) == [lake.day_path("x", DAY)]
    assert len(lake.files("x")) == 3
    assert {p.name for p in Path(lake.day_path("x", DAY)).parent.iterdir()} == {"data.parquet"}
    assert lake.compact_day("x", DAY) == 0


def test_a_part_of_the_columns_of_a_part_of_a_day(lake: Lake) -> None:
    lake.compact_day("x", DAY)
    window = Window(T0 + 3 * HOUR, T0 + 4 * HOUR)
    assert lake.read("x", window, schema=SCHEMA, columns=["value", "id"]).equals(
        rows(3).select(["value", "id"])
    )
    nothing = Window(T0 + 5 * HOUR, T0 + 7 * HOUR)
    assert lake.read("x", nothing, schema=SCHEMA).num_rows == 0


def test_an_expanded_day_has_the_bytes_that_it_had(lake: Lake) -> None:
    before = files(lake)
    lake.compact_day("x", DAY)
    compacted = files(lake)
    assert lake.expand("x", NEIGHBOURS) == 1
    assert files(lake) == before
    assert lake.expand("x", NEIGHBOURS) == 0
    lake.compact_day("x", DAY)
    assert files(lake) == compacted


class Killed(BaseException):
    """The process ends here."""


def killed_at(count: int, call: Callable[..., Any]) -> Callable[..., Any]:
    left = iter(range(count))

    def run(*arguments: Any, **options: Any) -> Any:
        if next(left, None) is None:
            raise Killed
        return call(*arguments, **options)

    return run


@pytest.mark.parametrize("change", ["compact", "expand"])
@pytest.mark.parametrize("call", ["open", "mv", "rm", "rm_file"])
@pytest.mark.parametrize("count", range(5))
def test_a_kill_at_any_moment_changes_no_answer(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, change: str, call: str, count: int
) -> None:
    before, told = files(lake), answers(lake)

    def run() -> None:
        if change == "compact":
            lake.compact_day("x", DAY)
        else:
            lake.expand("x", NEIGHBOURS)

    if change == "expand":
        lake.compact_day("x", DAY)
    with monkeypatch.context() as patch:
        patch.setattr(lake.fs, call, killed_at(count, getattr(lake.fs, call)))
        with suppress(Killed):
            run()
    assert answers(lake) == told
    run()
    assert answers(lake) == told
    lake.expand("x", NEIGHBOURS)
    assert files(lake) == before


def test_an_hour_of_a_compacted_day_is_not_written(lake: Lake) -> None:
    lake.compact_day("x", DAY)
    with pytest.raises(BadInput, match=r"x of 2026-01-02T03Z cannot be written.*Lake.expand"):
        lake.write_hour("x", T0 + 3 * HOUR, rows(3))
    lake.expand("x", Window.of_hour(T0 + 3 * HOUR))
    lake.write_hour("x", T0 + 3 * HOUR, rows(2))
    assert lake.read("x", Window.of_hour(T0 + 3 * HOUR), schema=SCHEMA).equals(rows(2))


def test_a_reader_finds_what_moved_since_it_listed_the_files(lake: Lake) -> None:
    window = Window(T0 + 3 * HOUR, T0 + 24 * HOUR)

    def read(paths: list[str]) -> pa.Table:
        return pa.concat_tables(
            lake.read_file(path, schema=SCHEMA, window=window) for path in paths
        )

    expected, apart = lake.read("x", window, schema=SCHEMA), lake.files("x", window)
    lake.compact_day("x", DAY)
    together = lake.files("x", window)
    assert read(apart).equals(expected)
    lake.expand("x", window)
    assert read(together).equals(expected)
    with pytest.raises(FileNotFoundError):
        read([lake.hour_path("x", T0 + 9 * HOUR)])


def test_hours_that_differ_in_their_schema_stay_apart(lake: Lake) -> None:
    lake.write_hour("x", T0, pa.table({"id": ["other"]}))
    assert lake.compact_day("x", DAY) == 0
    assert len(lake.files("x")) == 6


def test_a_day_of_one_hour_and_a_daily_dataset_stay_as_they_are(lake: Lake) -> None:
    assert lake.compact_day("x", date(2026, 1, 3)) == 0
    lake.write_day("daily", DAY, rows(1))
    assert lake.compact_day("daily", DAY) == 0
    assert lake.expand("daily", NEIGHBOURS) == 0
    assert lake.read("daily", Window(T0, T0 + HOUR), schema=SCHEMA).equals(rows(1))


def test_a_damaged_day_is_not_expanded(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.compact_day("x", DAY)
    monkeypatch.setattr("nearline.partition.content_sha256", lambda _: "other")
    with pytest.raises(BadInput, match="is damaged: hour 00"):
        lake.expand("x", NEIGHBOURS)
    assert len(lake.files("x")) == 3
