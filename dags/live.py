"""How a new release goes live, the same for night and hour."""

from typing import Any

from airflow.sdk import Metadata, task
from airflow.sdk.exceptions import AirflowSkipException

from dags.assets import RELEASE


def go_live(version: Any) -> Any:
    """Wire gate → push → promote → push_active behind the task that returns a release's version.

    Returns what went live.
    """
    live = promote(version)
    gate(version) >> push(version) >> live >> push_active()
    return live


@task.short_circuit(ignore_downstream_trigger_rules=False)
def gate(version: str) -> bool:
    """Go on only with a release that the gate let pass; the log says why."""
    from pipeline import steps

    return steps.passed(version)


@task(pool="online")
def push(version: str) -> None:
    """Push the vectors of active users and of all items, each with the release's version."""
    from pipeline import steps

    steps.push(version)


@task(pool="online", outlets=[RELEASE])
def promote(version: str) -> object:
    """Move the pointer; serving swaps while it answers. Returns what went live.

    A nearline release that was overtaken is made again on the new line.
    """
    from pipeline import steps

    live = steps.promote(version)
    if live is None:
        raise AirflowSkipException(f"{version} was overtaken, and the new line needs nothing")
    yield Metadata(RELEASE, {"version": live})
    return live


@task(pool="online", trigger_rule="none_failed")
def push_active() -> int:
    """Push the active release's vectors where the online store holds others; mostly nothing."""
    from pipeline import steps

    return steps.push_active()
