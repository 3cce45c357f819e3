import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from nearline.errors import BadInput
from nearline.lake import CATALOGUE, Lake
from nearline.schema import ITEM_SCHEMA, RAW_SCHEMA
from nearline.sources.command import app
from nearline.sources.files import parse_mapping, read_events, read_items

ROWS = pd.DataFrame(
    {"uid": ["7", "8"], "sku": ["a", None], "at": [1577872800, 1577872801], "kind": ["view"] * 2}
)
MAPPING = {"user_id": "uid", "item_id": "sku", "event_ts": "at", "event_type": "kind"}


def write(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_events(suffix: str, tmp_path: Path) -> None:
    path = write(ROWS, tmp_path / f"clicks{suffix}")
    events = read_events(path, mapping=MAPPING, event_type=None, time_unit="s")
    assert events.schema == RAW_SCHEMA
    rows = events.to_pydict()
    assert (rows["user_id"], rows["item_id"]) == (["7", "8"], ["a", None])
    assert rows["event_ts"][0] == "2020-01-01T10:00:00.000000+00:00"
    assert len(set(rows["event_id"])) == 2


def test_an_unreadable_time_is_kept_for_quarantine(tmp_path: Path) -> None:
    path = write(ROWS.assign(at=["2020-01-01T10:00:00Z", "soon"]), tmp_path / "clicks.csv")
    events = read_events(path, mapping=MAPPING, event_type=None, time_unit="iso").to_pydict()
    assert events["event_ts"][1] == "soon"
    assert events["received_ts"][1] == events["received_ts"][0]


def test_a_missing_column_is_named_with_what_there_is(tmp_path: Path) -> None:
    path = write(ROWS, tmp_path / "clicks.csv")
    with pytest.raises(BadInput, match=r"no column user_id.*uid, sku"):
        read_events(path, mapping={}, event_type="view", time_unit="s")
    with pytest.raises(BadInput, match="user_id=who"):
        read_events(path, mapping={"user_id": "who"}, event_type="view", time_unit="s")


def test_a_mapping_of_an_unknown_name_is_refused() -> None:
    assert parse_mapping(["user_id=uid"], ["user_id"]) == {"user_id": "uid"}
    with pytest.raises(BadInput, match="colour=red"):
        parse_mapping(["colour=red"], ["user_id"])


def test_items_take_lists_and_separated_categories(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"item_id": [1], "title": ["T"], "created_ts": ["2020-01-01"], "categories": ["x|y"]}
    )
    items = read_items(write(frame, tmp_path / "items.csv"), mapping={}).to_pylist()
    assert (items[0]["item_id"], items[0]["categories"]) == ("1", ["x", "y"])
    assert items[0]["available"] is True


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_an_item_needs_no_more_than_its_id(suffix: str, tmp_path: Path) -> None:
    path = write(pd.DataFrame({"sku": ["a", "b"]}), tmp_path / f"items{suffix}")
    items = read_items(path, mapping={"item_id": "sku"})
    assert items.schema == ITEM_SCHEMA
    assert items["item_id"].to_pylist() == ["a", "b"]
    assert items["title"].null_count == items["created_ts"].null_count == 2
    with pytest.raises(BadInput, match=r"no column item_id; .*--mapping item_id=COLUMN"):
        read_items(path, mapping={})


def test_a_load_of_items_tells_of_items_alone(home: Path) -> None:
    path = write(pd.DataFrame({"item_id": ["a", "b"]}), home / "items.csv")
    done = CliRunner().invoke(app, ["items", str(path), "--json"], catch_exceptions=False)
    assert json.loads(done.stdout) == {"items": 2}
    assert Lake.open().read_snapshot(CATALOGUE, schema=ITEM_SCHEMA).num_rows == 2


def test_a_time_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    frame = pd.DataFrame({"item_id": ["a", "b"], "created_ts": ["2020-01-01", "soon"]})
    with pytest.raises(BadInput, match=r"items\.csv: item 'b': created_ts is 'soon', no ISO 8601"):
        read_items(write(frame, tmp_path / "items.csv"), mapping={})


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_items_bring_vectors(suffix: str, tmp_path: Path) -> None:
    vectors = [[0.5, -1.0], None]
    frame = pd.DataFrame(
        {
            "item_id": ["a", "b"],
            "title": ["A", "B"],
            "created_ts": ["2020-01-01"] * 2,
            "photo": [str(v) if v else None for v in vectors] if suffix == ".csv" else vectors,
        }
    )
    path = write(frame, tmp_path / f"items{suffix}")
    items = read_items(path, mapping={"image_vector": "photo"})
    assert items["image_vector"].to_pylist() == vectors
    assert items["text_vector"].null_count == 2


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (["[1, 2]", "[1]"], "item 'b': image_vector has 1 numbers, those of other items have 2"),
        (["[1, 2]", "[1, NaN]"], "item 'b': image_vector holds what is no finite number"),
        (["[1, 2]", "[1"], r"items.csv: item 'b': image_vector is '\[1', no list of numbers"),
        (["[1, 2]", "foo"], "items.csv: item 'b': image_vector is 'foo', no list of numbers"),
        (["[1, 2]", '["x", 1]'], "item 'b': image_vector is .*x.*, no list of numbers"),
        (["[1, 2]", "7"], "item 'b': image_vector is '7', no list of numbers"),
    ],
)
def test_vectors_that_are_not_alike_are_refused(
    vectors: list[str], message: str, tmp_path: Path
) -> None:
    frame = pd.DataFrame(
        {
            "item_id": ["a", "b"],
            "title": ["A", "B"],
            "created_ts": ["2020-01-01"] * 2,
            "image_vector": vectors,
        }
    )
    with pytest.raises(BadInput, match=message):
        read_items(write(frame, tmp_path / "items.csv"), mapping={})


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"expected one of \.csv"):
        read_items(tmp_path / "items.xlsx", mapping={})
