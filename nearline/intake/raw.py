"""Raw hours: how arrived rows are put into the partitions of the hours in which they arrived."""

import pyarrow as pa
import pyarrow.compute as pc

from nearline.identity import stored_ids
from nearline.intake.forgotten import Forgotten
from nearline.lake import RAW, Lake, hour_groups
from nearline.locks import alone
from nearline.schema import EVENT_ID, RAW_SCHEMA, RECEIVED_TS, USER_ID
from nearline.windows import Window

_FIRST = (RECEIVED_TS, EVENT_ID)
_ORDER = (*_FIRST, *(name for name in RAW_SCHEMA.names if name not in _FIRST))
"""By arrival; every column, as malformed rows may share all but one."""


def merge_raw(lake: Lake, rows: pa.Table) -> None:
    """Add rows (RAW_SCHEMA) to their hours; a row that is there already stays single.

    So the same rows give the same bytes, however often and in whatever parts they are added. Users
    get the ids that are stored of them; what was forgotten stays away (see
    `nearline.intake.forgotten`).
    """
    rows = with_stored_ids(rows)
    with alone("lake"):
        _add(lake, rows.filter(pc.invert(Forgotten.load().rows(rows))))


def with_stored_ids(rows: pa.Table) -> pa.Table:
    """Rows with users under the ids that are stored of them."""
    place = rows.schema.get_field_index(USER_ID)
    return rows.set_column(place, USER_ID, stored_ids(rows[USER_ID]))


def _add(lake: Lake, rows: pa.Table) -> None:
    for hour, arrived in hour_groups(rows, RECEIVED_TS):
        lake.expand(RAW, Window.of_hour(hour))
        there = lake.read(RAW, Window.of_hour(hour), schema=RAW_SCHEMA)
        both = pa.concat_tables([there, arrived.cast(RAW_SCHEMA)])
        unique = both.group_by(RAW_SCHEMA.names, use_threads=False).aggregate([])
        lake.write_hour(RAW, hour, unique.select(RAW_SCHEMA.names), sort_by=_ORDER)
