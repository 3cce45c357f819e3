"""What the schedule and the command line call: one window a call, one Spark session."""

from dataclasses import dataclass
from datetime import datetime

from nearline.lake import EVENTS, QUARANTINE, RAW, Lake
from nearline.settings import settings
from nearline.windows import Window


@dataclass(frozen=True)
class FeaturesReport:
    """What came of the raw rows that arrived in `window`.

    `accepted` plus `quarantined` (by reason) is how many arrived. `touched_hours` are the event
    hours that something arrived for, `changed` the hours from the first of them to the window's
    end: features of all these are new. `rows` counts what was written, by dataset.
    """

    window: Window
    changed: Window
    accepted: int
    quarantined: dict[str, int]
    touched_hours: list[datetime]
    rows: dict[str, int]


@dataclass(frozen=True)
class CooccurrenceReport:
    """`days` written, `pairs` in them, `items` that got neighbours."""

    window: Window
    days: int
    pairs: int
    items: int


def run_features(window: Window) -> FeaturesReport:
    """Clean the arrivals of `window`; write events, quarantine, partials, and user sequences.

    A late event changes what its user's later hours know, so sequences are written again from its
    hour on. The ledger takes the window once all is written: a killed run leaves it open, and the
    next one writes the same bytes. Raises MissingPartition when raw hours were not closed or no
    catalogue was loaded, StepFailed when Spark does not start.
    """
    from spark_jobs.clean import clean_hours
    from spark_jobs.partials import SCHEMAS
    from spark_jobs.sequences import USER_SEQUENCE, update_sequences
    from spark_jobs.session import spark_session
    from spark_jobs.tails import USER_TAIL
    from spark_jobs.user_states import roll_user_states

    lake = Lake.open()
    lake.require_complete(RAW, window)
    with spark_session(settings()) as spark:
        cleaned = clean_hours(spark, window)
        changed = Window(min([window.start, *cleaned.hours]), window.end)
        rows = cleaned.rows | update_sequences(spark, changed)
        roll_user_states(spark, window.end)
    for dataset in (EVENTS, QUARANTINE, *SCHEMAS, USER_TAIL, USER_SEQUENCE):
        lake.mark_complete(dataset, window, rows=rows.get(dataset, 0), since=changed.start)
    return FeaturesReport(
        window, changed, cleaned.accepted, cleaned.quarantined, cleaned.hours, rows
    )


def run_cooccurrence(window: Window) -> CooccurrenceReport:
    """Write the item pairs of the days that are over, and each item's neighbours at the end.

    Days that late events may have changed are done again. Raises MissingPartition when the events
    of the window are not complete, StepFailed when Spark does not start.
    """
    from spark_jobs.cooccurrence import ITEM_NEIGHBOURS, item_neighbours
    from spark_jobs.fading import PAIR_STATES, roll_pair_states
    from spark_jobs.pairs import COOCCURRENCE, days_over, write_days
    from spark_jobs.session import spark_session

    lake = Lake.open()
    lake.require_complete(EVENTS, window)
    days = days_over(window, settings().late_hours)
    with spark_session(settings()) as spark:
        if days:
            PAIR_STATES.remove_later(lake, days[0])
        pairs = write_days(spark, days)
        roll_pair_states(spark, window.end)
        items = item_neighbours(spark, window.end)
    lake.mark_complete(COOCCURRENCE, window, rows=pairs)
    lake.mark_complete(ITEM_NEIGHBOURS, Window.trailing(window.end, hours=1), rows=items)
    return CooccurrenceReport(window, len(days), pairs, items)
