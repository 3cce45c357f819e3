from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from nearline.errors import BadInput
from nearline.lake import Lake
from training.dataset import EVENTS_READ
from training.replay.data import Source


def test_the_lake_is_played_without_a_file(
    full_lake: Lake, stream: tuple[pa.Table, pa.Table]
) -> None:
    events, items = Source().read()
    assert events.num_rows == stream[0].num_rows
    assert items["item_id"].to_pylist() == sorted(stream[1]["item_id"].to_pylist())
    assert events.schema == EVENTS_READ


def test_rows_without_a_user_or_a_time_and_repeated_ids_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    pd.DataFrame(
        {
            "event_id": ["1", "2", "2", "3", "4"],
            "user_id": ["u", "u", "u", None, "u"],
            "item_id": ["a", "b", "b", "a", "c"],
            "event_ts": ["2026-01-01", "2026-01-02", "2026-01-02", "2026-01-03", "never"],
        }
    ).to_csv(path, index=False)
    events, items = Source(path, event_type="play").read()
    assert events["event_id"].to_pylist() == ["1", "2"]
    assert items.num_rows == 0


def test_a_movielens_folder_and_a_catalogue_bring_items(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::10::5::978300760\n1::11::4::978300761\n")
    (tmp_path / "movies.dat").write_text("10::One (1995)::Comedy\n11::Two (1996)::Drama\n")
    events, items = Source(tmp_path).read()
    assert (events.num_rows, items["title"].to_pylist()) == (2, ["One (1995)", "Two (1996)"])
    with pytest.raises(BadInput, match="leave out --items"):
        Source(tmp_path, tmp_path / "movies.dat").read()
    clicks, things = tmp_path / "clicks.csv", tmp_path / "things.csv"
    clicks.write_text("user_id,item_id,event_type,event_ts\nu,a,play,2026-01-01T00:00:00Z\n")
    things.write_text("item_id,title,created_ts\na,Thing,2025-01-01T00:00:00Z\n")
    events, items = Source(clicks, things).read()
    assert (events.num_rows, items["title"].to_pylist()) == (1, ["Thing"])


def test_a_catalogue_may_have_other_names(tmp_path: Path) -> None:
    clicks, things = tmp_path / "clicks.csv", tmp_path / "things.csv"
    clicks.write_text("user_id,item_id,event_type,event_ts\nu,a,play,2026-01-01T00:00:00Z\n")
    things.write_text("sku,name,since\na,Thing,2025-01-01T00:00:00Z\n")
    with pytest.raises(BadInput, match="--items-mapping item_id=COLUMN"):
        Source(clicks, things).read()
    names = {"item_id": "sku", "title": "name", "created_ts": "since"}
    _, items = Source(clicks, things, items_mapping=names).read()
    assert items["title"].to_pylist() == ["Thing"]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        Source(tmp_path / "no.csv").read()
