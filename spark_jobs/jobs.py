"""What the Spark room does for a window, in one session."""

from nearline.lake import EVENTS, QUARANTINE, Lake
from nearline.settings import settings
from nearline.windows import Window
from spark_jobs.clean import CleanReport, clean_hours
from spark_jobs.partials import SCHEMAS
from spark_jobs.session import spark_session


def run_features(window: Window) -> CleanReport:
    """Clean what arrived in `window` and aggregate the hours it touches.

    The ledger takes the window only when everything is written: a killed run leaves it open, and
    the next one writes the same bytes. Raises MissingPartition when raw hours are not closed.
    """
    lake = Lake.open()
    with spark_session(settings()) as spark:
        report = clean_hours(spark, window)
    for dataset in (EVENTS, QUARANTINE, *SCHEMAS):
        lake.mark_complete(dataset, window, rows=report.rows.get(dataset, 0))
    return report
