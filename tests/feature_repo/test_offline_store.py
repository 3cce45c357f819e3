"""Features as they stood: nothing later than the moment that is asked about."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from feast import FeatureStore

from feature_repo.partitions import partition_files, view_schema
from feature_repo.views import item_popularity, user_activity
from nearline.lake import Lake
from nearline.schema import FEATURE_TS
from nearline.windows import HOUR
from pipeline.online import apply_features, feature_store

T0 = datetime(2026, 3, 1, 10, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def store(home: Path) -> Iterator[FeatureStore]:
    feature_store.cache_clear()
    apply_features()
    yield feature_store()
    feature_store.cache_clear()


def write(view: Any, hour: datetime, **row: Any) -> None:
    table = pa.Table.from_pylist([row | {FEATURE_TS: hour + HOUR}], schema=view_schema(view))
    Lake.open().write_hour(f"features/{view.name}", hour, table)


def ask(store: FeatureStore, *times: datetime) -> dict[str, list[Any]]:
    """ranking_v1 of user u and item a at each time."""
    entities = pd.DataFrame({"user_id": "u", "item_id": "a", "event_timestamp": list(times)})
    service = store.get_feature_service("ranking_v1")
    job = store.get_historical_features(
        entity_df=entities, features=service, full_feature_names=True
    )
    frame = job.to_df().sort_values("event_timestamp").astype(object)
    found = frame.where(frame.notna(), None)
    return {
        "recency_seconds": found["user_activity__recency_seconds"].tolist(),
        "velocity": found["item_popularity__velocity"].tolist(),
    }


def test_each_row_is_as_it_stood_then(store: FeatureStore) -> None:
    for n in range(3):
        write(user_activity, T0 + n * HOUR, user_id="u", recency_seconds=n)
    write(item_popularity, T0 + HOUR, item_id="a", velocity=2.5)
    times = [T0 + HOUR - SECOND, T0 + HOUR, T0 + 2 * HOUR - SECOND, T0 + 2 * HOUR, T0 + 9 * HOUR]
    assert ask(store, *times) == {
        "recency_seconds": [None, 0, 0, 1, 2],
        "velocity": [None, None, None, 2.5, 2.5],
    }


def test_a_row_older_than_its_ttl_is_not_told(store: FeatureStore) -> None:
    write(user_activity, T0, user_id="u", recency_seconds=1)
    known = T0 + HOUR
    assert user_activity.ttl
    expired = known + user_activity.ttl + HOUR
    assert ask(store, known, expired)["recency_seconds"] == [1, None]


def test_a_fresh_lake_has_no_features_and_no_error(store: FeatureStore) -> None:
    assert ask(store, T0) == {"recency_seconds": [None], "velocity": [None]}


def test_only_the_hours_of_a_request_are_read(store: FeatureStore) -> None:
    for n in range(4):
        write(user_activity, T0 + n * HOUR, user_id="u", recency_seconds=n)
    lake = Lake.open()
    files = partition_files(lake, "features/user_activity", T0 + 2 * HOUR, T0 + 3 * HOUR)
    assert files == [lake.hour_path("features/user_activity", T0 + n * HOUR) for n in (1, 2)]
    assert partition_files(lake, "features/user_activity", T0, T0 + HOUR / 2) == []
    assert len(partition_files(lake, "features/user_activity", None, None)) == 4
