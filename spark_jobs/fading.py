"""Faded pairs: what all days up to a day tell of two items, the newer the more.

A weight fades by half every HALF_LIFE_DAYS, and is gone after PAIR_DAYS. It is kept forwards,
after Cormode et al., "Forward Decay" (ICDE 2009): not old days lose weight, new ones gain it. Of
a day with number n since 1970, a unit counts

    GRADES[n mod 30] * 2^(n div 30 - block)

where `block` is that of the oldest day that counts. These are whole numbers, and a later block
divides them by a power of two that they hold. So days are added to a sum, and taken off again,
exactly: `partials/cooccurrence_state` (see `spark_jobs.states`) holds the sum before a day, and a
night reads it, the days since, and the days that have gone since.
"""

from datetime import date, datetime

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from nearline.lake import Lake
from nearline.reach import PAIR_DAYS
from nearline.schema import ITEM_ID
from nearline.windows import DAY, Window, midnight
from spark_jobs.pairs import COOCCURRENCE, PAIR_SCHEMA
from spark_jobs.partitions import EPOCH, read_files
from spark_jobs.states import States, settled_day

HALF_LIFE_DAYS = 30
GRADES = [round(1000 * 2 ** (n / HALF_LIFE_DAYS)) for n in range(HALF_LIFE_DAYS)]
"""How a unit's worth rises from day to day within a half-life."""

WEIGHT_SCHEMA = pa.schema(
    [(ITEM_ID, pa.string()), ("neighbour_id", pa.string()), ("weight", pa.int64())]
)
"""One row for a pair and a direction. `weight` is in units as worth on their day (`worth`)."""

PAIR_STATES = States(f"{COOCCURRENCE}_state", WEIGHT_SCHEMA, (ITEM_ID, "neighbour_id"))


def roll_pair_states(spark: SparkSession, end: datetime) -> None:
    """Write the state that the arrivals before `end` have settled, if it is due.

    The pairs of the days before it must be written.
    """
    lake, day = Lake.open(), settled_day(end)
    if PAIR_STATES.is_due(lake, day) and lake.files(COOCCURRENCE, reach(day)):
        PAIR_STATES.write(lake, faded_pairs(spark, lake, day), day)


def faded_pairs(spark: SparkSession, lake: Lake, day: date) -> DataFrame:
    """The weights (WEIGHT_SCHEMA, above 0) of the PAIR_DAYS before `day`, worth as on `day`."""
    state = PAIR_STATES.newest(lake, after=day - HALF_LIFE_DAYS * DAY, until=day)
    if state is None:
        return _summed(_weights(spark, lake, reach(day), block_of(day)))
    block, history = block_of(state), PAIR_DAYS * DAY
    parts = read_files(spark, lake, PAIR_STATES.files(lake, state), WEIGHT_SCHEMA)
    if state < day:
        since = Window(midnight(state), midnight(day))
        gone = Window(since.start - history, since.end - history)
        lost = _weights(spark, lake, gone, block).withColumn("weight", -F.col("weight"))
        parts = parts.unionByName(_weights(spark, lake, since, block)).unionByName(lost)
    shift = block_of(day) - block
    return _summed(parts).withColumn("weight", F.shiftright("weight", shift))


def worth(number: Column | int, block: int) -> Column:
    """What a unit of day `number` (days since 1970) counts, seen from `block`."""
    number = F.lit(number)
    grade = F.element_at(F.array(*map(F.lit, GRADES)), (number % HALF_LIFE_DAYS + 1).cast("int"))
    doubled = (F.floor(number / HALF_LIFE_DAYS) - block).cast("int")
    return F.call_function("shiftleft", grade.cast("long"), doubled)


def block_of(day: date) -> int:
    """The half-life (whole ones since 1970) of the oldest day that counts on `day`."""
    return (day_number(day) - PAIR_DAYS) // HALF_LIFE_DAYS


def day_number(day: date) -> int:
    """Days since 1970."""
    return (day - EPOCH.date()).days


def reach(day: date) -> Window:
    """The days before `day` that count on it."""
    return Window(midnight(day) - PAIR_DAYS * DAY, midnight(day))


def _weights(spark: SparkSession, lake: Lake, window: Window, block: int) -> DataFrame:
    pairs = read_files(spark, lake, lake.files(COOCCURRENCE, window), PAIR_SCHEMA)
    return weighed(pairs, block)


def weighed(pairs: DataFrame, block: int) -> DataFrame:
    """Pairs (PAIR_SCHEMA) with their `weight` instead of their units."""
    weight = F.col("units") * worth(F.col("day"), block)
    return pairs.select(ITEM_ID, "neighbour_id", weight.alias("weight"))


def _summed(weights: DataFrame) -> DataFrame:
    sums = weights.groupBy(ITEM_ID, "neighbour_id").agg(F.sum("weight").alias("weight"))
    return sums.where("weight > 0")
