"""How a new release goes live, the same for night and hour."""

from typing import Any

from airflow.sdk import Metadata, task
from airflow.sdk.exceptions import AirflowSkipException

from dags.assets import OVERTAKEN, RELEASE


def go_live(version: Any) -> None:
    """Wire gate → push → promote behind the task that returns a release's version.

    Then `push_active`, and `run_again` for hours that the line that is live lacks. Where the task
    returns none, nothing goes live.
    """
    gate(version) >> push(version) >> promote(version) >> [push_active(), run_again(version)]


@task.short_circuit(ignore_downstream_trigger_rules=False)
def gate(version: str | None) -> bool:
    """Go on only with a release that the gate let pass; the log says why."""
    from pipeline import steps

    return version is not None and steps.passed(version)


@task(pool="online")
def push(version: str) -> None:
    """Push the vectors of active users and of all items, each with the release's version."""
    from pipeline import steps

    steps.push(version)


@task(pool="online", outlets=[RELEASE])
def promote(version: str) -> object:
    """Move the pointer; serving swaps while it answers. Skipped where the release was overtaken."""
    from pipeline import steps

    if not steps.promote(version):
        raise AirflowSkipException(f"{version} was overtaken")
    yield Metadata(RELEASE, {"version": version})


@task(pool="online", trigger_rule="none_failed")
def push_active() -> int:
    """Push the active release's vectors where the online store holds others; mostly nothing."""
    from pipeline import steps

    return steps.push_active()


@task(outlets=[OVERTAKEN], trigger_rule="none_failed")
def run_again(version: str | None) -> object:
    """Start `nearline_hourly` for hours that were overtaken; skipped where there are none."""
    from pipeline import steps

    hours = None if version is None else steps.overtaken(version)
    if hours is None:
        raise AirflowSkipException(f"{version}: no hours were overtaken")
    yield Metadata(OVERTAKEN, {"start": hours.start.isoformat(), "end": hours.end.isoformat()})
