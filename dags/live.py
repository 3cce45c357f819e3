"""How a new release goes live, the same for night and hour."""

from typing import Any

from airflow.sdk import Metadata, task

from dags.assets import RELEASE


def go_live(version: Any) -> None:
    """Wire gate → push → promote behind the task that returns a release's version."""
    gate(version) >> push(version) >> promote(version)


@task.short_circuit
def gate(version: str) -> bool:
    """Go on only with a release that the gate let pass; the log says why."""
    from pipeline import steps

    return steps.passed(version)


@task(pool="online")
def push(version: str) -> None:
    """Push the vectors of active users and of all items, each with the release's version."""
    from pipeline import steps

    steps.push(version)


@task(outlets=[RELEASE])
def promote(version: str) -> object:
    """Move the pointer; serving swaps while it answers."""
    from pipeline import steps

    steps.promote(version)
    yield Metadata(RELEASE, {"version": version})
