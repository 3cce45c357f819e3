"""Where features come from: hourly datasets of the lake, and vectors pushed by a release.

A path names a dataset below the lake, which the offline store finds through the settings; so the
registry holds no path of one machine.
"""

from feast import FileSource, PushSource

from nearline.schema import FEATURE_TS


def _dataset(name: str, written_by: str) -> FileSource:
    return FileSource(
        name=name,
        path=f"features/{name}",
        timestamp_field=FEATURE_TS,
        description=f"features/{name} in the lake, one partition an hour, written by {written_by}.",
    )


user_activity_source = _dataset("user_activity", "dbt model feat_user_activity")
user_category_affinity_source = _dataset(
    "user_category_affinity", "dbt model feat_user_category_affinity"
)
user_habits_source = _dataset("user_habits", "dbt model feat_user_habits")
user_searches_source = _dataset("user_searches", "dbt model feat_user_searches")
user_sequence_source = _dataset("user_sequence", "spark_jobs")
item_popularity_source = _dataset("item_popularity", "dbt model feat_item_popularity")
item_conversion_source = _dataset("item_conversion", "dbt model feat_item_conversion")
item_neighbours_source = _dataset("item_neighbours", "spark_jobs")
trending_source = _dataset("trending", "dbt model feat_trending")


def _pushed(name: str) -> PushSource:
    batch = FileSource(
        name=f"{name}_batch",
        path=f"features/{name}",
        timestamp_field="event_timestamp",
        description="Never written: Feast wants a batch source beside every push source.",
    )
    return PushSource(
        name=f"{name}_push",
        batch_source=batch,
        description="Vectors of one release, pushed when it becomes active.",
    )


user_embedding_push = _pushed("user_embedding")
item_embedding_push = _pushed("item_embedding")
