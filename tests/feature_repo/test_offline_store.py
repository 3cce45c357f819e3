"""Features as they stood: nothing later than the moment that is asked about, whoever reads."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pytest
from feast import FeatureStore

from feature_repo.partitions import partition_files, view_schema
from feature_repo.views import item_popularity, user_activity
from nearline.errors import BadInput
from nearline.lake import Lake
from nearline.schema import FEATURE_TS, TIMESTAMP
from nearline.settings import settings
from nearline.windows import HOUR
from pipeline.online import apply_features, feature_store

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

T0 = datetime(2026, 3, 1, 10, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture(params=["duckdb", "spark"])
def store(
    request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FeatureStore]:
    if request.param == "spark":
        request.getfixturevalue("spark")
    monkeypatch.setenv("NEARLINE_OFFLINE_STORE", request.param)
    settings.cache_clear()
    feature_store.cache_clear()
    apply_features()
    yield feature_store()
    feature_store.cache_clear()


def write(view: Any, hour: datetime, **row: Any) -> None:
    write_rows(view, hour, [row])


def write_users(hour: datetime, users: dict[str, int]) -> None:
    rows = [{"user_id": user, "recency_seconds": seconds} for user, seconds in users.items()]
    write_rows(user_activity, hour, rows)


def write_rows(view: Any, hour: datetime, rows: list[dict[str, Any]]) -> None:
    timed = [row | {FEATURE_TS: hour + HOUR} for row in rows]
    table = pa.Table.from_pylist(timed, schema=view_schema(view))
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


def test_rows_asked_twice_and_keys_that_are_null_are_answered(store: FeatureStore) -> None:
    write(user_activity, T0, user_id="u", recency_seconds=1)
    asked = pd.DataFrame(
        {"user_id": ["u", "u", None], "event_timestamp": T0 + HOUR, "label": [1, 2, 3]}
    )
    job = store.get_historical_features(asked, ["user_activity:recency_seconds"])
    rows = sorted(job.to_arrow().to_pylist(), key=lambda row: row["label"])
    assert [(row["label"], row["recency_seconds"]) for row in rows] == [(1, 1), (2, 1), (3, None)]
    with pytest.raises(BadInput, match="they need a column event_timestamp"):
        store.get_historical_features(asked[["user_id"]], ["user_activity:recency_seconds"])


def test_a_compacted_day_tells_the_same(store: FeatureStore) -> None:
    for n in range(3):
        write(user_activity, T0 + n * HOUR, user_id="u", recency_seconds=n)
    before = ask(store, T0 + HOUR, T0 + 2 * HOUR)
    assert Lake.open().compact_day("features/user_activity", T0.date())
    assert ask(store, T0 + HOUR, T0 + 2 * HOUR) == before


def test_all_rows_or_the_newest_of_a_range_are_pulled(store: FeatureStore) -> None:
    for n in range(4):
        write_users(T0 + n * HOUR, dict.fromkeys(("u", "v")[: 2 - n // 2], n))
    offline, first = store.provider.offline_store, T0 + 2 * HOUR
    features = ["recency_seconds"]
    source, names = user_activity.batch_source, (["user_id"], features, FEATURE_TS)

    def pulled(job: Any) -> list[tuple[Any, ...]]:
        table = job.to_arrow()
        assert table.column_names == ["user_id", *features, FEATURE_TS]
        return sorted(tuple(row.values()) for row in table.to_pylist())

    latest = offline.pull_latest_from_table_or_query(
        store.config, source, *names, None, first, T0 + 3 * HOUR
    )
    assert pulled(latest) == [("u", 2, T0 + 3 * HOUR), ("v", 1, T0 + 2 * HOUR)]
    every = offline.pull_all_from_table_or_query(store.config, source, *names, None, first)
    assert [(user, n) for user, n, _ in pulled(every)] == [("u", 1), ("u", 2), ("u", 3), ("v", 1)]


def test_spark_takes_its_own_frames_and_answers_with_one(
    home: Path, spark: "SparkSession", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_OFFLINE_STORE", "spark")
    settings.cache_clear()
    feature_store.cache_clear()
    apply_features()
    write(user_activity, T0, user_id="u", recency_seconds=1)
    asked = spark.createDataFrame(
        pa.table({"user_id": ["u"], "event_timestamp": pa.array([T0 + HOUR], TIMESTAMP)})
    )
    job = feature_store().get_historical_features(asked, ["user_activity:recency_seconds"])
    assert [row["recency_seconds"] for row in job.to_spark_df().collect()] == [1]
    feature_store.cache_clear()


def test_only_the_hours_of_a_request_are_read(home: Path) -> None:
    for n in range(4):
        write(user_activity, T0 + n * HOUR, user_id="u", recency_seconds=n)
    lake = Lake.open()
    files = partition_files(lake, "features/user_activity", T0 + 2 * HOUR, T0 + 3 * HOUR)
    assert files == [lake.hour_path("features/user_activity", T0 + n * HOUR) for n in (1, 2)]
    assert partition_files(lake, "features/user_activity", T0, T0 + HOUR / 2) == []
    assert len(partition_files(lake, "features/user_activity", None, None)) == 4
