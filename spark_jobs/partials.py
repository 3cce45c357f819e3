"""Hourly partial aggregates of clean events: small, mergeable, one hour at a time.

| dataset | grain (with the hour) | columns |
|---|---|---|
| partials/user_hourly | user, event type | events, values, their sum, items, last time |
| partials/item_hourly | item, event type | events, users, values, their sum |
| partials/user_category_hourly | user, category | events, sum of the domain's weights |
| partials/user_session_hourly | user | events, first and last time, breaks, active time |
| partials/user_query_hourly | user, query | events, last time |

`hour` is the start of the hour, so that a row tells it without its path. Items and users count
once each, `values` are the events that have a value, active time is in microseconds. Values and
weights are decimals: they add up exactly, in any order.
"""

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nearline.schema import EVENT_TS, EVENT_TYPE, ITEM_ID, TIMESTAMP, USER_ID, VALUE

USER_HOURLY = "partials/user_hourly"
ITEM_HOURLY = "partials/item_hourly"
USER_CATEGORY_HOURLY = "partials/user_category_hourly"
USER_SESSION_HOURLY = "partials/user_session_hourly"
USER_QUERY_HOURLY = "partials/user_query_hourly"

HOUR_COLUMN = "hour"
AMOUNT = pa.decimal128(24, 6)
"""Six decimals and a million of the largest values (LARGEST_VALUE)."""
SUM = pc.ScalarAggregateOptions(min_count=0)
"""A sum of nothing is 0."""
SESSION_BREAK = timedelta(minutes=30)
"""A session ends when its user does nothing for longer than this."""
QUERY_LENGTH = 100
"""Of a query no more than this many characters count."""

USER_HOURLY_SCHEMA = pa.schema(
    [
        (USER_ID, pa.string()),
        (EVENT_TYPE, pa.string()),
        (HOUR_COLUMN, TIMESTAMP),
        ("events", pa.int64()),
        ("values", pa.int64()),
        ("value_sum", AMOUNT),
        ("items", pa.int64()),
        ("last_event_ts", TIMESTAMP),
    ]
)
ITEM_HOURLY_SCHEMA = pa.schema(
    [
        (ITEM_ID, pa.string()),
        (EVENT_TYPE, pa.string()),
        (HOUR_COLUMN, TIMESTAMP),
        ("events", pa.int64()),
        ("users", pa.int64()),
        ("values", pa.int64()),
        ("value_sum", AMOUNT),
    ]
)
USER_CATEGORY_HOURLY_SCHEMA = pa.schema(
    [
        (USER_ID, pa.string()),
        ("category", pa.string()),
        (HOUR_COLUMN, TIMESTAMP),
        ("events", pa.int64()),
        ("weight", AMOUNT),
    ]
)
USER_SESSION_HOURLY_SCHEMA = pa.schema(
    [
        (USER_ID, pa.string()),
        (HOUR_COLUMN, TIMESTAMP),
        ("events", pa.int64()),
        ("first_event_ts", TIMESTAMP),
        ("last_event_ts", TIMESTAMP),
        ("breaks", pa.int64()),
        ("active_us", pa.int64()),
    ]
)
"""`breaks` are the gaps of more than 30 minutes between neighbouring events of the user's hour,
`active_us` is the sum of the others, in microseconds."""
USER_QUERY_HOURLY_SCHEMA = pa.schema(
    [
        (USER_ID, pa.string()),
        ("query", pa.string()),
        (HOUR_COLUMN, TIMESTAMP),
        ("events", pa.int64()),
        ("last_event_ts", TIMESTAMP),
    ]
)
"""`query` as `normal_query` writes it."""

KEYS = {
    USER_HOURLY: (USER_ID, EVENT_TYPE),
    ITEM_HOURLY: (ITEM_ID, EVENT_TYPE),
    USER_CATEGORY_HOURLY: (USER_ID, "category"),
    USER_SESSION_HOURLY: (USER_ID,),
    USER_QUERY_HOURLY: (USER_ID, "query"),
}
"""What tells the rows of an hour apart, and orders them."""
SCHEMAS = {
    USER_HOURLY: USER_HOURLY_SCHEMA,
    ITEM_HOURLY: ITEM_HOURLY_SCHEMA,
    USER_CATEGORY_HOURLY: USER_CATEGORY_HOURLY_SCHEMA,
    USER_SESSION_HOURLY: USER_SESSION_HOURLY_SCHEMA,
    USER_QUERY_HOURLY: USER_QUERY_HOURLY_SCHEMA,
}


def hourly_partials(events: pa.Table, hour: datetime) -> dict[str, pa.Table]:
    """All partials of one hour, by dataset, their rows in no order.

    `events` are the clean events of the hour that begins at `hour`, with `categories` (list of
    string, may be null) and `weight` (double) beside the columns of EVENT_SCHEMA.
    """
    made = {
        USER_HOURLY: user_hourly(events),
        ITEM_HOURLY: item_hourly(events),
        USER_CATEGORY_HOURLY: user_category_hourly(events),
        USER_SESSION_HOURLY: user_session_hourly(events),
        USER_QUERY_HOURLY: user_query_hourly(events),
    }
    return {dataset: _of_hour(hour, rows, SCHEMAS[dataset]) for dataset, rows in made.items()}


def user_hourly(events: pa.Table) -> pa.Table:
    """What each user did, by event type."""
    grouped = _exact(events, VALUE).group_by([USER_ID, EVENT_TYPE], use_threads=False)
    return grouped.aggregate(
        [
            ([], "count_all"),
            (VALUE, "count"),
            (VALUE, "sum", SUM),
            (ITEM_ID, "count_distinct"),
            (EVENT_TS, "max"),
        ]
    ).rename_columns(
        [USER_ID, EVENT_TYPE, "events", "values", "value_sum", "items", "last_event_ts"]
    )


def item_hourly(events: pa.Table) -> pa.Table:
    """What was done to each item, by event type; events without an item are left out."""
    events = _exact(events.filter(pc.is_valid(events[ITEM_ID])), VALUE)
    grouped = events.group_by([ITEM_ID, EVENT_TYPE], use_threads=False)
    return grouped.aggregate(
        [([], "count_all"), (USER_ID, "count_distinct"), (VALUE, "count"), (VALUE, "sum", SUM)]
    ).rename_columns([ITEM_ID, EVENT_TYPE, "events", "users", "values", "value_sum"])


def user_category_hourly(events: pa.Table) -> pa.Table:
    """What each user gave to each category; an event counts in all its item's categories."""
    categories = events["categories"].combine_chunks()
    parents = pc.list_parent_indices(categories)
    flat = pa.table(
        {
            USER_ID: events[USER_ID].take(parents),
            "category": pc.list_flatten(categories),
            "weight": events["weight"].take(parents),
        }
    )
    flat = _exact(flat.filter(pc.is_valid(flat["category"])), "weight")
    grouped = flat.group_by([USER_ID, "category"], use_threads=False)
    return grouped.aggregate([([], "count_all"), ("weight", "sum")]).rename_columns(
        [USER_ID, "category", "events", "weight"]
    )


def user_session_hourly(events: pa.Table) -> pa.Table:
    """How each user's events lie in the hour: its ends, its breaks, its active time."""
    events = events.sort_by([(USER_ID, "ascending"), (EVENT_TS, "ascending")])
    users = events[USER_ID].combine_chunks().dictionary_encode().indices.to_numpy()
    gaps = np.diff(events[EVENT_TS].cast(pa.int64()).to_numpy(), prepend=0)
    goes_on = np.diff(users, prepend=-1) == 0
    breaks = goes_on & (gaps > SESSION_BREAK // timedelta(microseconds=1))
    told = {
        USER_ID: events[USER_ID],
        EVENT_TS: events[EVENT_TS],
        "breaks": breaks.astype(np.int64),
        "active_us": np.where(goes_on & ~breaks, gaps, 0),
    }
    grouped = pa.table(told).group_by(USER_ID, use_threads=False)
    return grouped.aggregate(
        [
            ([], "count_all"),
            (EVENT_TS, "min"),
            (EVENT_TS, "max"),
            ("breaks", "sum"),
            ("active_us", "sum"),
        ]
    ).rename_columns([USER_ID, *USER_SESSION_HOURLY_SCHEMA.names[2:]])


def user_query_hourly(events: pa.Table) -> pa.Table:
    """What each user searched for; events without a query are left out."""
    events = events.set_column(
        events.column_names.index("query"), "query", normal_query(events["query"])
    )
    events = events.filter(pc.greater(pc.utf8_length(events["query"]), 0))
    grouped = events.group_by([USER_ID, "query"], use_threads=False)
    return grouped.aggregate([([], "count_all"), (EVENT_TS, "max")]).rename_columns(
        [USER_ID, "query", "events", "last_event_ts"]
    )


def normal_query(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Queries in lower case, white space as single blanks, at most QUERY_LENGTH characters."""
    words = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(pc.utf8_lower(text)))
    cut = pc.utf8_slice_codeunits(pc.binary_join(words, " "), 0, QUERY_LENGTH)
    return pc.utf8_trim_whitespace(cut)


def _exact(events: pa.Table, name: str) -> pa.Table:
    """A column of doubles as decimals, which add up the same in any order."""
    return events.set_column(events.column_names.index(name), name, events[name].cast(AMOUNT))


def _of_hour(hour: datetime, rows: pa.Table, schema: pa.Schema) -> pa.Table:
    hours = pa.repeat(pa.scalar(hour, TIMESTAMP), rows.num_rows)
    return rows.append_column(HOUR_COLUMN, hours).select(schema.names).cast(schema)
