"""Serving over the real online store: materialized hours, pushed vectors, the real reader."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from nearline.lake import Lake
from nearline.schema import FEATURE_TS, TIMESTAMP
from nearline.sequence import microseconds
from nearline.settings import settings
from nearline.windows import HOUR, Window
from pipeline import online
from serving.features import EMPTY, FeatureReader, StoreFailed

ITEMS = tuple(f"i{n}" for n in range(20))
SEQUENCE = pa.schema(
    [
        ("user_id", pa.string()),
        (FEATURE_TS, TIMESTAMP),
        ("item_ids", pa.list_(pa.string())),
        ("event_types", pa.list_(pa.string())),
        ("event_ts", pa.list_(pa.int64())),
        ("values", pa.list_(pa.float64())),
        ("taken_item_ids", pa.list_(pa.string())),
    ]
)
TRENDING = pa.schema(
    [
        ("surface", pa.string()),
        (FEATURE_TS, TIMESTAMP),
        ("item_ids", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float64())),
    ]
)


@pytest.fixture
def reader(world: Any) -> Iterator[FeatureReader]:
    online.feature_store.cache_clear()
    found = FeatureReader.open()
    yield found
    found.close()
    online.feature_store.cache_clear()


def materialize(world: Any, hour_end: Any, sequences: dict[str, list[tuple[str, Any]]]) -> None:
    """One hour, as Spark and dbt would leave it, brought online."""
    from feature_repo.views import BATCH_VIEWS

    lake, window = Lake.open(), Window.trailing(hour_end, hours=1)
    rows = [
        {
            "user_id": user,
            FEATURE_TS: hour_end,
            "item_ids": [item for item, _ in events],
            "event_types": ["play"] * len(events),
            "event_ts": [microseconds(ts) for _, ts in events],
            "values": [1.0] * len(events),
            "taken_item_ids": ["i18"],
        }
        for user, events in sequences.items()
    ]
    lake.write_hour(
        "features/user_sequence", window.start, pa.Table.from_pylist(rows, schema=SEQUENCE)
    )
    trending = [
        {"surface": "all", FEATURE_TS: hour_end, "item_ids": ["i9", "i8"], "scores": [2.0, 1.0]}
    ]
    lake.write_hour(
        "features/trending", window.start, pa.Table.from_pylist(trending, schema=TRENDING)
    )
    for view in BATCH_VIEWS:
        lake.mark_complete(f"features/{view.name}", window, rows=0)
    online.materialize(window)


def test_before_features_are_applied_the_reader_says_what_to_do(
    world: Any, reader: FeatureReader
) -> None:
    reader.warm()
    with pytest.raises(StoreFailed, match="run the hourly features"):
        reader.user("ann")
    assert not settings().feast_registry.exists()


def test_a_user_through_the_three_clocks(
    world: Any, reader: FeatureReader, eventually: Any
) -> None:
    """Stranger, live, materialized (counted once), pushed but not active, stored, live again."""
    hour_end = world.now.replace(minute=0)
    world.promote(ITEMS)
    world.catalogue(*({"item_id": i} for i in ITEMS))
    old = ("i1", hour_end - timedelta(minutes=30))
    materialize(world, hour_end, {"ann": [old]})

    def lookup(client: Any, user_id: str = "ann") -> tuple[str, list[str]]:
        answer = client.get(f"/v1/users/{user_id}/recommendations?fill=false&limit=20").json()
        return answer["source"], [item["item_id"] for item in answer["items"]]

    with world.client(world.service(reader=reader)) as client:
        assert lookup(client, "nobody") == ("trending", ["i9", "i8"])
        assert lookup(client)[0] == "live"
        client.post("/v1/events", json=world.event("e1", "i2"))
        source, live = lookup(client)
        assert source == "live"
        assert set(live) == set(ITEMS) - {"i1", "i2", "i18"}

        happened = world.now - timedelta(seconds=5)
        materialize(world, hour_end + HOUR, {"ann": [old, ("i2", happened)]})
        assert lookup(client) == ("live", live)

        world.now = hour_end + HOUR + timedelta(minutes=1)
        hourly = world.publish(ITEMS, seed=3, until=hour_end + HOUR)
        online.push_embeddings(hourly, ["ann"], world.models[hourly].items[[1 + 15]])
        assert lookup(client)[0] == "live"
        world.releases.promote(hourly)
        eventually(lambda: client.get("/readyz").json()["release"] == hourly)
        source, stored = lookup(client)
        assert (source, stored[0]) == ("stored", "i15")

        client.post("/v1/events", json=world.event("e2", "i15"))
        source, after = lookup(client)
        assert source == "live"
        assert "i15" not in after
        figures = client.get("/metrics").text
    assert 'nearline_user_vectors_total{outcome="stored_other_release"} 1.0' in figures
    assert 'nearline_user_vectors_total{outcome="stored"} 1.0' in figures


def test_many_threads_may_read(world: Any, reader: FeatureReader) -> None:
    hour_end = world.now.replace(minute=0)
    users = {f"u{n}": [(f"i{n}", hour_end - timedelta(minutes=n + 1))] for n in range(20)}
    materialize(world, hour_end, users)
    reader.warm()
    with ThreadPoolExecutor(8) as pool:
        asked = [*users, "nobody"] * 10
        found = list(pool.map(lambda user: reader.user(user).history, asked))
    for user, history in zip(asked, found, strict=True):
        expected = [item for item, _ in users.get(user, [])]
        assert list(history.item_ids) == expected
    assert found[-1] == EMPTY
