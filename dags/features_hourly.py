"""Turns each hour of raw events into features.

Spark (clean, partial aggregates, sequences) → dbt (marts, tests, feature marts).
A run is about its data interval, or about `start` and `end` where they are given: one hour, a
backfill and a bulk load of years take the same way. Running an hour again gives the same bytes.
"""

from datetime import timedelta

from airflow.sdk import DAG, Metadata, Param, task
from airflow.timetables.interval import CronDataIntervalTimetable

from dags.assets import FEATURES
from nearline.settings import settings
from nearline.windows import parse_time

with DAG(
    "features_hourly",
    schedule=CronDataIntervalTimetable("0 * * * *", timezone="UTC"),
    start_date=parse_time(settings().schedule_start),
    catchup=False,
    max_active_runs=1,
    tags=["nearline", "features"],
    doc_md=__doc__,
    params={
        "start": Param(None, type=["null", "string"], description="first hour, 2026-01-31T13:00Z"),
        "end": Param(None, type=["null", "string"], description="the hour after the last"),
    },
    default_args={
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(hours=2),
    },
):

    @task(pool="lake")
    def spark_features(**context: object) -> None:
        """Clean and quarantine; hourly partial aggregates; user sequences."""
        from pipeline import steps
        from pipeline.runs import run_window

        steps.spark_features(run_window(context))

    @task(pool="lake", outlets=[FEATURES])
    def dbt_marts(**context: object) -> object:
        """Build and test the marts, and write the feature marts to the lake."""
        from pipeline import steps
        from pipeline.runs import run_window

        window = run_window(context)
        steps.dbt_marts(window)
        yield Metadata(FEATURES, {"start": window.start.isoformat(), "end": window.end.isoformat()})

    spark_features() >> dbt_marts()
