"""What the DAGs have in common: the window as parameters, and how tasks are tried again."""

from datetime import timedelta
from typing import Any

from airflow.sdk import Param

WINDOW = {
    "start": Param(None, type=["null", "string"], description="first hour, 2026-01-31T13:00Z"),
    "end": Param(None, type=["null", "string"], description="the hour after the last"),
}
"""A run that is given both is about these hours, whatever its schedule says."""

PATIENT: dict[str, Any] = {
    "retries": 2,
    "retry_delay": timedelta(seconds=30),
    "execution_timeout": timedelta(hours=2),
}
"""Every step may be run again: it leaves the old data in place until it has finished."""
