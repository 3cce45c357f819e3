"""What the DAGs have in common: the window as parameters, and how tasks are tried again."""

from datetime import timedelta
from typing import Any

from airflow.sdk import Param

from nearline.settings import settings
from nearline.windows import parse_time

HOURLY_START = parse_time(settings().schedule_start)
"""No scheduled hour begins before this."""

DAILY_START = HOURLY_START - timedelta(days=1)
"""The first scheduled day has begun already: it ends within a day of the start of the schedule."""

WINDOW = {
    "start": Param(None, type=["null", "string"], description="first hour, 2026-01-31T13:00Z"),
    "end": Param(None, type=["null", "string"], description="the hour after the last"),
}
"""A run that is given both is about these hours, whatever its schedule says."""

_LONGEST = timedelta(hours=2)

PATIENT: dict[str, Any] = {
    "retries": 2,
    "retry_delay": timedelta(seconds=30),
    "execution_timeout": _LONGEST,
}
"""Every step may be run again: it leaves the old data in place until it has finished."""

LONGEST_NIGHT = timedelta(minutes=settings().max_train_minutes) + _LONGEST
"""What a night may learn, and what reading, measuring and publishing take at most."""
