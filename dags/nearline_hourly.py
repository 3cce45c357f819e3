"""Tunes the active model on the hours that have just become features, and puts it live.

fine-tune and gate → push (users encoded anew, items) → promote (the pointer moves, serving swaps).
Hours that arrive together are one run. It goes on beside a night that is trained. An hour without
events, or a lake without an active release, ends after the first task, at little cost. A release
that the gate refuses is kept, with its reasons, and goes no further. One whose parent was replaced
meanwhile is left, and its hours are run again on the new line (asset `overtaken`). Whatever became
of the run, `push_active` leaves the active release's vectors online. Whether the fine-tune went
live or not, a line that has gone far from its night, or whose night is long ago, asks for another
(asset `night_wanted`).
"""

from airflow.sdk import DAG, Metadata, task
from airflow.sdk.exceptions import AirflowSkipException

from dags.assets import FEATURES, NIGHT_WANTED, OVERTAKEN
from dags.live import go_live
from dags.parameters import PATIENT, WINDOW

with DAG(
    "nearline_hourly",
    schedule=FEATURES | OVERTAKEN,
    catchup=False,
    max_active_runs=1,
    tags=["nearline", "model"],
    doc_md=__doc__,
    params=WINDOW,
    default_args=PATIENT,
):
    # Not in the pool `model`: a night may take hours. One run at a time keeps hours apart.
    @task
    def finetune(**context: object) -> str | None:
        """A warm start on what arrived; returns the new release, nothing where none is due."""
        from pipeline import steps
        from pipeline.runs import triggering_window

        return steps.finetune(triggering_window(context))

    @task(outlets=[NIGHT_WANTED], trigger_rule="all_done")
    def ask_for_night(version: str | None, **context: object) -> object:
        """Start `train_nightly` where the line is far from its night, or old; else skipped."""
        from pipeline import steps
        from pipeline.runs import triggering_window

        day = steps.night_wanted(triggering_window(context), version)
        if day is None:
            raise AirflowSkipException("no other night is wanted now")
        yield Metadata(NIGHT_WANTED, {"start": day.start.isoformat(), "end": day.end.isoformat()})
        return day.end.isoformat()

    @task
    def night_asked(end: str) -> None:
        """Remember it, so that the next hours do not ask again: a task that ended has asked."""
        from pipeline import steps

        steps.night_asked(end)

    tuned = finetune()
    night_asked(ask_for_night(tuned))
    go_live(tuned)
