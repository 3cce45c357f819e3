from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from nearline.errors import BadInput
from nearline.lake import RAW, Lake
from nearline.schema import ITEM_SCHEMA, RAW_SCHEMA
from nearline.sources.dataset import Dataset, append_raw, conform, upsert_items
from nearline.windows import Window

T0 = datetime(2020, 5, 1, 10, tzinfo=UTC)


def raw(minutes: list[int], prefix: str = "e") -> Dataset:
    times = [T0 + timedelta(minutes=m) for m in minutes]
    frame = pd.DataFrame(
        {
            "event_id": [f"{prefix}{m}" for m in minutes],
            "user_id": "u",
            "item_id": "i",
            "event_type": "play",
            "event_ts": [t.isoformat() for t in times],
            "value": "0.5",
            "source": "load",
            "received_ts": pd.Series(times).astype("datetime64[us, UTC]"),
        }
    )
    return Dataset(conform(frame, RAW_SCHEMA), ITEM_SCHEMA.empty_table())


def test_the_history_ends_where_asked_and_the_rest_is_held_back() -> None:
    end = datetime(2026, 1, 1, tzinfo=UTC)
    history, held = raw([300, 0, 60, 61]).shifted(end=end, hold_back=0.25)
    assert history.events["event_id"].to_pylist() == ["e0", "e60", "e61"]
    assert history.events["received_ts"][2].as_py() == end - timedelta(seconds=1)
    assert history.events["event_ts"][2].as_py() == "2025-12-31T23:59:59.000000+00:00"
    assert held.events["event_id"].to_pylist() == ["e300"]
    assert held.events["received_ts"][0].as_py() > end


def test_an_unreadable_time_is_kept_as_it_is() -> None:
    data = raw([0, 1])
    texts = conform(data.events.to_pandas().assign(event_ts=["soon", "2020-05-01"]), RAW_SCHEMA)
    moved, _ = Dataset(texts, data.items).shifted(end=T0, hold_back=0)
    assert moved.events["event_ts"][0].as_py() == "soon"


def test_hastened_traffic_keeps_its_order_and_its_start() -> None:
    data = raw([0, 60, 150]).hastened(since=T0, speed=30)
    arrivals = [(ts - T0).total_seconds() for ts in data.events["received_ts"].to_pylist()]
    assert arrivals == [0, 120, 300]
    assert data.events["event_ts"][1].as_py() == "2020-05-01T10:02:00.000000+00:00"


def test_nothing_to_load_is_an_error() -> None:
    with pytest.raises(BadInput, match="nothing to load"):
        raw([]).shifted(end=T0, hold_back=0)


def test_loading_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    first = append_raw(lake, raw([0, 5, 130]).events)
    before = [Path(p).read_bytes() for p in lake.files(RAW)]
    assert append_raw(lake, raw([130, 0, 5]).events) == first
    assert [Path(p).read_bytes() for p in lake.files(RAW)] == before
    assert first == Window(T0, T0 + timedelta(hours=3))
    lake.require_complete(RAW, first)


def test_loading_more_keeps_what_was_there(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    append_raw(lake, raw([0]).events)
    append_raw(lake, raw([1], prefix="f").events, until=T0 + timedelta(hours=5))
    assert lake.read(RAW, schema=RAW_SCHEMA)["event_id"].to_pylist() == ["e0", "f1"]
    assert lake.watermark(RAW) == T0 + timedelta(hours=5)
    assert append_raw(lake, raw([]).events) is None


def test_an_item_is_replaced_by_its_id(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    for titles in (["A", "B"], ["A2"]):
        ids = ["a", "b"][: len(titles)]
        upsert_items(lake, conform(pd.DataFrame({"item_id": ids, "title": titles}), ITEM_SCHEMA))
    items = lake.read_snapshot("catalogue", schema=ITEM_SCHEMA)
    assert items["title"].to_pylist() == ["A2", "B"]
