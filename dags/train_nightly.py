"""Learns the whole model again from the lake, and puts it live where the gate agrees.

Training, baselines and gate → push → promote; beside it, Spark finds each item's neighbours. A run
is about its data interval, or about `start` and `end` where they are given; the model learns from
the NEARLINE_HISTORY_DAYS up to the window's end. It starts half an hour after the hour, when the
last hour's features are there; where they are not, it tries again. It also starts where
`nearline_hourly` asks for a night (the asset `night_wanted`), and learns up to what had arrived.
Hours go live while it is trained; once it is live, those that it does not know are run again on it
(asset `overtaken`).
"""

from airflow.sdk import DAG, AssetOrTimeSchedule, task
from airflow.timetables.interval import CronDataIntervalTimetable

from dags.assets import NIGHT_WANTED
from dags.live import go_live
from dags.parameters import DAILY_START, LONGEST_NIGHT, PATIENT, WINDOW

with DAG(
    "train_nightly",
    schedule=AssetOrTimeSchedule(
        timetable=CronDataIntervalTimetable("30 3 * * *", timezone="UTC"), assets=[NIGHT_WANTED]
    ),
    start_date=DAILY_START,
    catchup=False,
    max_active_runs=1,
    tags=["nearline", "model"],
    doc_md=__doc__,
    params=WINDOW,
    default_args=PATIENT,
):

    @task(pool="lake")
    def item_neighbours(**context: object) -> None:
        """Which items the same users turn to, brought online."""
        from pipeline import steps
        from pipeline.runs import triggering_window

        steps.item_neighbours(triggering_window(context))

    @task(pool="model", execution_timeout=LONGEST_NIGHT)
    def train(**context: object) -> str:
        """The whole model, its baselines and the gate's verdict; returns the release."""
        from pipeline import steps
        from pipeline.runs import triggering_window

        return steps.train(triggering_window(context))

    item_neighbours()
    go_live(train())
