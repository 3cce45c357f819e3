"""Feast's offline store: the lake's hourly partitions, reading only those a request can need."""

import warnings
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

import ibis
import pyarrow as pa
from feast import FeatureView, RepoConfig
from feast.data_source import DataSource
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.ibis import (
    get_historical_features_ibis,
    pull_all_from_table_or_query_ibis,
    pull_latest_from_table_or_query_ibis,
)
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.type_map import feast_value_type_to_pa
from feast.utils import make_tzaware

from feature_repo.partitions import partition_files
from nearline.lake import Lake
from nearline.schema import FEATURE_TS, TIMESTAMP

# ibis 11 calls a method that DuckDB 2 renamed; it still works.
warnings.filterwarnings("ignore", message="fetch_arrow_table", category=DeprecationWarning)


class LakeOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """No settings of its own."""

    type: Literal["feature_repo.offline_store.LakeOfflineStore"] = (
        "feature_repo.offline_store.LakeOfflineStore"
    )


class LakeOfflineStore(DuckDBOfflineStore):
    """Reads the lake through DuckDB; a dataset or window without a file gives no rows."""

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """Nothing to check: on a fresh lake a dataset has no file yet."""

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """The newest row of each key with a time in `[start_date, end_date]`."""
        return pull_latest_from_table_or_query_ibis(
            config=config,
            data_source=data_source,
            join_key_columns=join_key_columns,
            feature_name_columns=feature_name_columns,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            start_date=start_date,
            end_date=end_date,
            data_source_reader=_reader(lambda _: start_date, end_date),
            data_source_writer=_refuse_write,
        )

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Every row with a time in the range."""
        return pull_all_from_table_or_query_ibis(
            config=config,
            data_source=data_source,
            join_key_columns=join_key_columns,
            feature_name_columns=feature_name_columns,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            start_date=start_date,
            end_date=end_date,
            data_source_reader=_reader(lambda _: start_date, end_date),
            data_source_writer=_refuse_write,
        )

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
    ) -> RetrievalJob:
        """The point-in-time join; it reads each view from one ttl before the first entity row."""
        times = entity_df["event_timestamp"]
        first, last = (make_tzaware(ts.to_pydatetime()) for ts in (times.min(), times.max()))
        ttls = {view.batch_source.name: view.ttl for view in feature_views if view.batch_source}

        def start(source: DataSource) -> datetime | None:
            ttl = ttls.get(source.name)
            return first - ttl if ttl else None

        return get_historical_features_ibis(
            config=config,
            feature_views=feature_views,
            feature_refs=feature_refs,
            entity_df=entity_df,
            registry=registry,
            project=project,
            full_feature_names=full_feature_names,
            data_source_reader=_reader(start, last),
            data_source_writer=_refuse_write,
            filter_by_created_timestamp=filter_by_created_timestamp,
        )


def _reader(
    start: Callable[[DataSource], datetime | None], end: datetime | None
) -> Callable[[DataSource, str], Any]:
    def read(source: DataSource, repo_path: str) -> Any:
        dataset = str(source.path)  # type: ignore[attr-defined]
        files = partition_files(Lake.open(), dataset, start(source), end)
        if files:
            return ibis.read_parquet(files, hive_partitioning=False)
        return ibis.memtable(_schema(source).empty_table())

    return read


def _schema(source: DataSource) -> pa.Schema:
    """The columns of a dataset that has no file, from the view that reads it."""
    from feature_repo.views import VIEWS

    fields = [
        (field.name, feast_value_type_to_pa(field.dtype.to_value_type()))
        for view in VIEWS
        if view.batch_source is not None and view.batch_source.name == source.name
        for field in view.schema
    ]
    return pa.schema([*fields, (source.timestamp_field or FEATURE_TS, TIMESTAMP)])


def _refuse_write(*_: Any) -> None:
    raise NotImplementedError("the lake is written by spark_jobs and pipeline.marts, not by Feast")
