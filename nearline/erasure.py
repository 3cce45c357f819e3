"""Which rows of a table tell of a user's time before a moment: what forgetting removes.

A row is the user's whose `user_id` it carries. Rows of one event go when it happened before the
moment; rows of an hour, when the hour began before it. Features of a user look back beyond their
hour, so that all of them go. What came in refused, and too broken to have a user, is searched for
the id.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nearline.schema import EVENT_TS, FEATURE_TS, RECEIVED_TS, REFUSED, TIMESTAMP, USER_ID

Since = Mapping[str, datetime]
"""User id → the moment before which all is forgotten."""

NEEDED = (
    *(USER_ID, EVENT_TS, RECEIVED_TS, FEATURE_TS, "hour", "session_start"),
    *("source", "attributes"),
)
"""The columns that are looked at, where a table has them."""

_HAPPENED = (EVENT_TS, "hour", "session_start", RECEIVED_TS)
"""What tells the time of a row, the first that there is; a table with features has none."""


def owners(table: pa.Table, since: Since) -> pa.Array:
    """For each row the user of `since` whose forgotten time it tells of, null for nobody's."""
    users = _given(table, USER_ID)
    if {"source", "attributes"} <= {*table.column_names}:
        users = pc.coalesce(users, _in_attributes(table, since))
    ids = pa.array(list(since), pa.string())
    place = pc.index_in(users, value_set=ids)
    found = pc.is_valid(place)
    if pc.any(found).as_py():
        times = row_times(table)
        if times is not None:
            limits = pa.array(list(since.values()), TIMESTAMP).take(place)
            found = pc.fill_null(pc.less(times, limits), False)
    return pc.if_else(found, users, pa.scalar(None, pa.string()))


def row_times(table: pa.Table) -> pa.Array | None:
    """When what a row tells of happened, or began; None where rows tell of all time before them."""
    names = table.column_names
    name = None if FEATURE_TS in names else next((n for n in _HAPPENED if n in names), None)
    if name is None:
        return None
    times = _given(table, name)
    if not pa.types.is_string(times.type):
        return times.cast(TIMESTAMP)
    import pandas as pd

    received = _given(table, RECEIVED_TS)
    told = pd.to_datetime(times.to_pandas(), utc=True, errors="coerce", format="ISO8601")
    happened = pa.array(told, from_pandas=True).cast(TIMESTAMP, safe=False)
    # A clock that runs ahead tells a time after the arrival; one that cannot be read tells none.
    earlier = pc.fill_null(pc.less(happened, received), False)
    return pc.if_else(earlier, happened, received)


def _ids(value: Any) -> Iterator[str]:
    """What may be a user id among the values of something that was JSON."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _ids(each)
    elif isinstance(value, str | int):
        yield str(value)


def _given(table: pa.Table, name: str) -> pa.Array:
    column = table[name]
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _in_attributes(table: pa.Table, since: Since) -> pa.Array:
    """The user whose id lies in the attributes of a refused row that has no user."""
    refused = pc.ends_with(_given(table, "source"), REFUSED)
    searched = pc.and_(refused, pc.is_null(_given(table, USER_ID)))
    found: list[str | None] = [None] * table.num_rows
    for row in np.flatnonzero(pc.fill_null(searched, False)):
        value = json.loads(table["attributes"][int(row)].as_py() or "null")
        found[row] = next((user_id for user_id in _ids(value) if user_id in since), None)
    return pa.array(found, pa.string())
