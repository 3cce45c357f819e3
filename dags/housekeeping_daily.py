"""Keeps an installation small: compacts days, removes what is older than is kept, forgets users.

Arms of experiments that harmed in the last week are closed too (docs/how-to/experiment.md).
The lake is tidied where its writers wait (pool `lake`), the online store likewise (pool `online`).
Releases beyond the newest ones and journals of closed hours go too.
"""

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

    @task(pool="lake")
    def close_harmful(**context: object) -> int:
        """Close the arms of experiments that lose too much of the control's clicks; how many."""
        from pipeline.experiments.harm import close_harmful
        from pipeline.runs import run_window

        return close_harmful(run_window(context).end)

    @task(pool="lake")
    def tidy_lake(**context: object) -> dict[str, int]:
        """Forget users; compact and remove days, journals and releases; how many of each."""
        from pipeline.housekeeping import tidy_lake
        from pipeline.runs import run_window

        return tidy_lake(run_window(context))

    @task(pool="online")
    def tidy_online(**context: object) -> dict[str, int]:
        """Forget the same users, shorten the ledger of the online store; how many of each."""
        from pipeline.housekeeping import tidy_online
        from pipeline.runs import run_window

        return tidy_online(run_window(context))

    close_harmful()
    tidy_lake() >> tidy_online()
