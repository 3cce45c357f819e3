"""User states: the newest events of every user before a day (see `spark_jobs.states`).

`partials/user_state` of day X holds what the tails of the days before X tell: the newest
`sequence_length` events of each user in the last SEQUENCE_DAYS, and the newest that takes each of
the user's items. Sequences come out the same from
any state, and from none.
"""

from datetime import date, datetime

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from nearline.domains import load_domain
from nearline.lake import Lake
from nearline.reach import SEQUENCE_DAYS
from nearline.schema import EVENT_TS, USER_ID
from nearline.settings import settings
from nearline.windows import DAY, Window, midnight
from spark_jobs.partitions import read_files
from spark_jobs.states import States, settled_day
from spark_jobs.tails import TAIL_ORDER, TAIL_SCHEMA, USER_TAIL, newest

USER_STATES = States("partials/user_state", TAIL_SCHEMA, TAIL_ORDER)


def past_files(lake: Lake, day: date, users: pa.Array | None = None) -> list[str]:
    """The files that tell what was done before `day`: the newest state, and the tails since.

    Of `users` only, if given, as far as files tell them apart.
    """
    first = day - SEQUENCE_DAYS * DAY
    state = USER_STATES.newest(lake, after=first, until=day)
    since = state or first
    tails = lake.files(USER_TAIL, Window(midnight(since), midnight(day))) if since < day else []
    return tails + USER_STATES.files(lake, state, users) if state else tails


def roll_user_states(spark: SparkSession, end: datetime) -> None:
    """Write the state that the arrivals before `end` have settled, if it is due.

    The tails of the days before it must be written.
    """
    lake, day = Lake.open(), settled_day(end)
    files = past_files(lake, day)
    if files and USER_STATES.is_due(lake, day):
        past = read_files(spark, lake, files, TAIL_SCHEMA)
        USER_STATES.write(lake, newest_before(past, day), day)


def newest_before(past: DataFrame, day: date) -> DataFrame:
    """What `newest` gives of each user in the SEQUENCE_DAYS before `day`."""
    first, config = F.lit(midnight(day) - SEQUENCE_DAYS * DAY), settings()
    known, taking = past.where(F.col(EVENT_TS) >= first), load_domain(config.domain).taking
    return newest(known, [USER_ID], config.sequence_length, taking)
