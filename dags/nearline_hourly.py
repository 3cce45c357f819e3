"""Tunes the active model on the hours that have just become features, and puts it live.

fine-tune and gate → push (users encoded anew, items) → promote (the pointer moves, serving swaps).
Hours that arrive together are one run. An hour without events, or a lake without an active release,
ends after the first task, at little cost. A release that the gate refuses is kept, with its
reasons, and goes no further. One whose parent was replaced meanwhile is made again on the new line.
Whatever became of the run, `push_active` leaves the active release's vectors online.
"""

from airflow.sdk import DAG, task

from dags.assets import FEATURES
from dags.live import go_live
from dags.parameters import PATIENT, WINDOW

with DAG(
    "nearline_hourly",
    schedule=[FEATURES],
    catchup=False,
    max_active_runs=1,
    tags=["nearline", "model"],
    doc_md=__doc__,
    params=WINDOW,
    default_args=PATIENT,
):

    @task.short_circuit(pool="model", ignore_downstream_trigger_rules=False)
    def finetune(**context: object) -> str | None:
        """A warm start on what arrived; returns the new release, nothing where none is due."""
        from pipeline import steps
        from pipeline.runs import triggering_window

        return steps.finetune(triggering_window(context))

    go_live(finetune())
