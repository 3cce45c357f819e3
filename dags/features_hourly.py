"""Turns each hour of accepted events into features that are online.

intake (close the hour) → Spark (clean, partial aggregates, sequences) → dbt (marts, tests, feature
marts) → Feast (online store). Then the asset `features` tells `nearline_hourly`. Beside Feast, the
drift of each feature is watched.

A run is about its data interval, or about `start` and `end` where they are given: one hour, a
backfill and a bulk load of years take the same way. Running an hour again gives the same bytes.

Each step also does the hours right before that it lacks, up to NEARLINE_CATCHUP_HOURS, and the
hours right after that an older hour made stale; the asset tells of all hours that came online.
"""

from airflow.sdk import DAG, Metadata, task
from airflow.timetables.interval import CronDataIntervalTimetable

from dags.assets import FEATURES, MARTS
from dags.parameters import HOURLY_START, PATIENT, WINDOW

with DAG(
    "features_hourly",
    schedule=CronDataIntervalTimetable("0 * * * *", timezone="UTC"),
    start_date=HOURLY_START,
    catchup=False,
    max_active_runs=1,
    tags=["nearline", "features"],
    doc_md=__doc__,
    params=WINDOW,
    default_args=PATIENT,
):

    @task(pool="lake")
    def close_hours(**context: object) -> None:
        """Turn the journals of accepted events into raw partitions."""
        from pipeline import steps
        from pipeline.runs import run_window

        steps.close_hours(run_window(context))

    @task(pool="lake")
    def spark_features(**context: object) -> None:
        """Clean and quarantine; hourly partial aggregates; user sequences."""
        from pipeline import steps
        from pipeline.runs import run_window

        steps.spark_features(run_window(context))

    @task(pool="lake", outlets=list(MARTS.values()))
    def dbt_marts(**context: object) -> None:
        """Build and test the marts, and write the feature marts to the lake."""
        from pipeline import steps
        from pipeline.runs import run_window

        steps.dbt_marts(run_window(context))

    @task(pool="online", outlets=[FEATURES])
    def materialize(**context: object) -> object:
        """Bring the features online, then tell whoever waits for them."""
        from pipeline import steps
        from pipeline.runs import run_window

        done = steps.materialize(run_window(context)).window
        yield Metadata(FEATURES, {"start": done.start.isoformat(), "end": done.end.isoformat()})

    @task(pool="lake")
    def feature_drift(**context: object) -> None:
        """Compare the features of the last day with the days before, and warn of a change."""
        from pipeline import steps
        from pipeline.runs import run_window

        steps.feature_drift(run_window(context))

    close_hours() >> spark_features() >> dbt_marts() >> [materialize(), feature_drift()]
