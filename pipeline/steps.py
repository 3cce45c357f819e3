"""The steps of the ring, each a function of a window: what tasks and commands call."""

from nearline.console import progress
from nearline.windows import Window


def spark_features(window: Window) -> int:
    """Clean what arrived, aggregate and sequence it; returns the events that were accepted."""
    from spark_jobs.jobs import run_features

    with progress(f"Spark: clean and aggregate {window}"):
        return run_features(window).accepted


def dbt_marts(window: Window) -> int:
    """Build and test the marts, publish the feature marts; returns the feature rows written."""
    from pipeline.marts import build_marts

    with progress(f"dbt: build and test the marts of {window}"):
        return sum(build_marts(window).rows.values())
