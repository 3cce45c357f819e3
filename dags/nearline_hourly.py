"""Tunes the active model on the hours that have just become features, and puts it live.

fine-tune and gate → push (users encoded anew, items) → promote (the pointer moves, serving swaps).
Hours that arrive together are one run. An hour without events, or a lake without an active release,
ends after the first task, at little cost. A release that the gate refuses is kept, with its
reasons, and goes no further. One whose parent was replaced meanwhile is made again on the new line.
Whatever became of the run, `push_active` leaves the active release's vectors online. A release that
has gone far from its night, or whose night is long ago, asks for another (asset `night_wanted`).
"""

from airflow.sdk import DAG, Metadata, task
from airflow.sdk.exceptions import AirflowSkipException

from dags.assets import FEATURES, NIGHT_WANTED
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

    @task(outlets=[NIGHT_WANTED])
    def ask_for_night(version: str) -> object:
        """Start `train_nightly` where the release has drifted past its bound; else skipped."""
        from pipeline import steps

        day = steps.night_wanted(version)
        if day is None:
            raise AirflowSkipException(f"{version} is near enough to its night")
        yield Metadata(NIGHT_WANTED, {"start": day.start.isoformat(), "end": day.end.isoformat()})

    ask_for_night(go_live(finetune()))
