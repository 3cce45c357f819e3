"""What the lake and the online store keep, and what steps need of what is behind their window.

A layer is the first part of a dataset's name: `raw`, `events`, `partials` and so on.
"""

from collections.abc import Mapping
from datetime import timedelta

from nearline.lake import EVENTS, QUARANTINE, RAW, Lake
from nearline.reach import PAIR_DAYS, SEQUENCE_DAYS, WINDOW_DAYS
from nearline.settings import settings
from nearline.windows import HOUR, Window
from spark_jobs import partials

SPARK_REACH = {RAW: 0, EVENTS: 0, QUARANTINE: 0, "partials/user_tail": SEQUENCE_DAYS}
MART_REACH = dict.fromkeys(partials.SCHEMAS, WINDOW_DAYS)
PAIR_REACH = {EVENTS: 0, "partials/cooccurrence": PAIR_DAYS}
"""Dataset → days before the hours that a step writes again."""


def require_kept(lake: Lake, reach: Mapping[str, int], window: Window) -> None:
    """Raise MissingPartition where a step of `window` would miss days that were removed.

    Hours of late events, up to `late_hours` before the window, are written again too.
    """
    late = settings().late_hours * HOUR
    for dataset, days in reach.items():
        first = window.start - late - timedelta(days=days)
        lake.require_kept(dataset, Window(first, window.end))


def expire(lake: Lake, now: Window) -> int:
    """Remove the days of each dataset that are older than its layer keeps; returns how many."""
    removed = 0
    for dataset in lake.datasets():
        days = settings().keep_days(dataset.split("/", 1)[0])
        if days is not None:
            removed += lake.expire(dataset, now.end - timedelta(days=days))
    return removed


def expire_online(now: Window) -> int:
    """Remove what is online of users and is older than events are kept; returns the rows.

    A row is as old as the newest hour that it tells of. Raises StepFailed.
    """
    from pipeline.online import expire_users

    days = settings().keep_days(EVENTS)
    return 0 if days is None else expire_users(now.end - timedelta(days=days))
