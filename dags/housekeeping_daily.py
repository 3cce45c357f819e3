"""Removes what nobody needs any more: releases beyond the newest ones, journals of closed hours."""

from airflow.sdk import DAG, task
from airflow.timetables.interval import CronDataIntervalTimetable

from dags.parameters import DAILY_START, PATIENT, WINDOW

with DAG(
    "housekeeping_daily",
    schedule=CronDataIntervalTimetable("45 4 * * *", timezone="UTC"),
    start_date=DAILY_START,
    catchup=False,
    max_active_runs=1,
    tags=["nearline", "housekeeping"],
    doc_md=__doc__,
    params=WINDOW,
    default_args=PATIENT,
):

    @task
    def housekeeping(**context: object) -> dict[str, int]:
        """Prune releases and journals; returns how many of each."""
        from pipeline import steps
        from pipeline.runs import run_window

        return steps.housekeeping(run_window(context))

    housekeeping()
