"""Feast's offline store: the lake's partitions, read by DuckDB or by Spark as the settings say.

Both run the same SQL (queries.py) on the partitions that a request can reach, no others. Feast has
a SparkOfflineStore of its own: it reads whole folders, where the lake hides hours behind compacted
days, and wants Spark sources, where a registry should not depend on who reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import new_class
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import pandas as pd
import pyarrow as pa
from feast import FeatureView, RepoConfig
from feast.data_source import DataSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel
from feast.utils import make_tzaware

from feature_repo import queries
from feature_repo.partitions import dataset_of, open_duckdb, partition_files, view_schema
from nearline.errors import BadInput
from nearline.lake import Lake
from nearline.schema import TIMESTAMP
from nearline.settings import settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_STORE, _CONFIG = "SettingsOfflineStore", "SettingsOfflineStoreConfig"
_EVER = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))


@dataclass(frozen=True)
class Rows:
    """The partitions that hold a view's rows, and the columns they have."""

    files: list[str]
    schema: pa.Schema

    @classmethod
    def between(cls, view: FeatureView, start: datetime | None, end: datetime | None) -> "Rows":
        """Those in reach of a range of times."""
        files = partition_files(Lake.open(), dataset_of(view.batch_source), start, end)
        return cls(files, view_schema(view))


class LakeJob(RetrievalJob):
    """A query on the rows of views and on what is asked; nothing is read before it is run."""

    def __init__(
        self,
        sql: str,
        asked: Any,
        rows: Sequence[Rows],
        *,
        full_feature_names: bool = False,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._sql, self._asked = sql, asked
        self._rows = {queries.rows_of(n): each for n, each in enumerate(rows)}
        self._full_feature_names, self._metadata = full_feature_names, metadata

    def _run(self) -> pa.Table:
        raise NotImplementedError

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        found = self._run()
        fields = [
            field.with_type(TIMESTAMP) if pa.types.is_timestamp(field.type) else field
            for field in found.schema
        ]
        return found.cast(pa.schema(fields))

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal().to_pandas()

    @property
    def full_feature_names(self) -> bool:
        """Whether features are named after their views."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[Any]:
        """None: nothing computes in the feature repository."""
        return []

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked for, if a history was."""
        return self._metadata

    def persist(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: the lake is not Feast's to write."""
        raise NotImplementedError("the lake is written by spark_jobs and pipeline.marts alone")


class DuckDBJob(LakeJob):
    """Runs on this machine, and spills to disk where memory is short."""

    def _run(self) -> pa.Table:
        with open_duckdb() as db:
            db.register(queries.ASKED, self._asked)
            for name, rows in self._rows.items():
                if rows.files:
                    db.read_parquet(rows.files, hive_partitioning=False).create_view(name)
                else:
                    db.register(name, rows.schema.empty_table())
            return db.sql(self._sql).to_arrow_table()


class SparkJob(LakeJob):
    """Runs on the Spark of the settings; the session stays, for the frames that were made of it."""

    def _run(self) -> pa.Table:
        return self.to_spark_df().toArrow()

    def to_spark_df(self) -> "DataFrame":
        """The answer where it is: for one that does not fit this machine."""
        from pyspark.sql import SparkSession

        from spark_jobs.partitions import read_files
        from spark_jobs.session import start_session

        spark = SparkSession.getActiveSession() or start_session(settings())
        asked = self._asked
        if isinstance(asked, pa.Table):
            asked = spark.createDataFrame(asked)
        frames = {
            name: read_files(spark, Lake.open(), rows.files, rows.schema)
            for name, rows in self._rows.items()
        }
        for name, frame in {queries.ASKED: asked, **frames}.items():
            frame.createOrReplaceTempView(name)
        return spark.sql(self._sql)


class LakeOfflineStore(OfflineStore):
    """Reads the lake; a dataset or window without a file gives no rows."""

    job: type[LakeJob]

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """Nothing to check: on a fresh lake a dataset has no file yet."""

    @classmethod
    def get_historical_features(
        cls,
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
    ) -> RetrievalJob:
        """The features as they stood at each row's `event_timestamp`.

        `entity_df` is a pandas frame, or Spark's where Spark reads. Of each view the partitions
        from one ttl before the first row are read. Raises BadInput without an `event_timestamp`.
        """
        columns = list(entity_df.columns)
        if queries.MOMENT not in columns:
            raise BadInput(f"entity rows have {columns}: they need a column {queries.MOMENT}")
        asked, first, last = _asked(entity_df)
        views = [_view_query(view, feature_refs, full_feature_names) for view in feature_views]
        return cls.job(
            queries.point_in_time(columns, views),
            asked,
            [
                Rows.between(view, first - view.ttl if view.ttl else None, last)
                for view in feature_views
            ],
            full_feature_names=full_feature_names,
            metadata=RetrievalMetadata(
                feature_refs, [c for c in columns if c != queries.MOMENT], first, last
            ),
        )

    @classmethod
    def pull_latest_from_table_or_query(
        cls,
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
        columns = [*join_key_columns, *feature_name_columns, timestamp_field]
        sql = queries.newest_in_range(join_key_columns, columns)
        return cls._pull(sql, data_source, start_date, end_date)

    @classmethod
    def pull_all_from_table_or_query(
        cls,
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
        columns = [*join_key_columns, *feature_name_columns, timestamp_field]
        return cls._pull(queries.in_range(columns), data_source, start_date, end_date)

    @classmethod
    def _pull(
        cls, sql: str, source: DataSource, start: datetime | None, end: datetime | None
    ) -> LakeJob:
        first, last = make_tzaware(start or _EVER[0]), make_tzaware(end or _EVER[1])
        span = {queries.FIRST: [first], queries.LAST: [last]}
        schema = pa.schema([(name, TIMESTAMP) for name in span])
        return cls.job(
            sql, pa.table(span, schema=schema), [Rows.between(_view_of(source), start, end)]
        )


class DuckDBLakeStore(LakeOfflineStore):
    """The lake, read by DuckDB in this process."""

    job = DuckDBJob


class SparkLakeStore(LakeOfflineStore):
    """The lake, read by Spark: for rows that are too many for one machine."""

    job = SparkJob


class LakeStoreConfig(FeastConfigBaseModel):
    """No settings of its own."""

    type: Literal["feature_repo.offline_store.SettingsOfflineStore"] = (
        "feature_repo.offline_store.SettingsOfflineStore"
    )


def _asked(entity_df: Any) -> tuple[Any, datetime, datetime]:
    """What is asked in a form that the engine takes, and the first and the last moment of it."""
    if isinstance(entity_df, pd.DataFrame):
        moments = pd.to_datetime(entity_df[queries.MOMENT], utc=True).astype("datetime64[us, UTC]")
        frame = entity_df.assign(**{queries.MOMENT: moments})
        asked = pa.Table.from_pandas(frame, preserve_index=False)
        return asked, moments.min().to_pydatetime(), moments.max().to_pydatetime()
    from pyspark.sql.functions import max as last
    from pyspark.sql.functions import min as first

    [(start, end)] = entity_df.agg(first(queries.MOMENT), last(queries.MOMENT)).collect()
    return entity_df, start.astimezone(UTC), end.astimezone(UTC)


def _view_query(view: FeatureView, refs: Sequence[str], full_names: bool) -> queries.ViewQuery:
    prefix = view.projection.name_to_use()
    wanted = [ref.split(":")[1] for ref in refs if ref.split(":")[0] == prefix]
    renamed: Mapping[str, str] = view.projection.join_key_map or {}
    return queries.ViewQuery(
        [(key, renamed.get(key, key)) for key in view.join_keys],
        [(name, f"{prefix}__{name}" if full_names else name) for name in wanted],
        view.ttl,
    )


def _view_of(source: DataSource) -> FeatureView:
    """The view that reads a source."""
    from feature_repo.views import VIEWS

    return next(v for v in VIEWS if v.batch_source and v.batch_source.name == source.name)


def __getattr__(name: str) -> type:
    """The store or its config by the name in feature_store.yaml, as the settings choose now."""
    if name not in (_STORE, _CONFIG):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    store = {"duckdb": DuckDBLakeStore, "spark": SparkLakeStore}[settings().offline_store]
    base: type = store if name == _STORE else LakeStoreConfig
    return new_class(name, (base,), exec_body=lambda body: body.update(__module__=__name__))
