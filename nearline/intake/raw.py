"""Raw hours: how arrived rows are put into the partitions of the hours in which they arrived."""

import pyarrow as pa
import pyarrow.compute as pc

from nearline.intake.forgotten import Forgotten
from nearline.lake import RAW, Lake, hour_groups
from nearline.locks import alone
from nearline.schema import EVENT_ID, RAW_SCHEMA, RECEIVED_TS
from nearline.windows import Window

_FIRST = (RECEIVED_TS, EVENT_ID)
_ORDER = (*_FIRST, *(name for name in RAW_SCHEMA.names if name not in _FIRST))
"""By arrival; every column, as malformed rows may share all but one."""


def merge_raw(lake: Lake, rows: pa.Table) -> None:
    """Add rows (RAW_SCHEMA) to their hours; a row that is there already stays single.

    So the same rows give the same bytes, however often and in whatever parts they are added. What
    was forgotten stays away (see `nearline.intake.forgotten`).
    """
    with alone("lake"):
        _add(lake, rows.filter(pc.invert(Forgotten.load().rows(rows))))


def _add(lake: Lake, rows: pa.Table) -> None:
    for hour, arrived in hour_groups(rows, RECEIVED_TS):
        lake.expand(RAW, Window.of_hour(hour))
        there = lake.read(RAW, Window.of_hour(hour), schema=RAW_SCHEMA)
        both = pa.concat_tables([there, arrived.cast(RAW_SCHEMA)])
        unique = both.group_by(RAW_SCHEMA.names, use_threads=False).aggregate([])
        lake.write_hour(RAW, hour, unique.select(RAW_SCHEMA.names), sort_by=_ORDER)
