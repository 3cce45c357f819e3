"""How a new release goes live, the same for night and hour."""

from typing import Any

from airflow.sdk import Metadata, task
from airflow.sdk.exceptions import AirflowSkipException

from dags.assets import RELEASE


def go_live(version: Any) -> Any:
    """Wire gate → push → promote → push_active behind the task that returns a release's version.

    Where that returns none, nothing goes live. Returns the task that moves the pointer.
    """
    live = promote(version)
    gate(version) >> push(version) >> live >> push_active()
    return live


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
