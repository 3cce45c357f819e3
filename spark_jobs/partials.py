"""Hourly partial aggregates of clean events: small, mergeable, one hour at a time.

| dataset | grain | columns |
|---|---|---|
| partials/user_hourly | user, event type | events, value_sum, last_event_ts, items (distinct) |
| partials/item_hourly | item, event type | events, users (distinct), value_sum |
| partials/user_category_hourly | user, category | events, weight (the domain's, summed) |

Sums run over rows in a fixed order on one thread, so the same events give the same bytes.
"""

import pyarrow as pa
import pyarrow.compute as pc

from nearline.schema import EVENT_TS, EVENT_TYPE, ITEM_ID, TIMESTAMP, USER_ID, VALUE

USER_HOURLY = "partials/user_hourly"
ITEM_HOURLY = "partials/item_hourly"
USER_CATEGORY_HOURLY = "partials/user_category_hourly"

USER_HOURLY_SCHEMA = pa.schema(
    [
        (USER_ID, pa.string()),
        (EVENT_TYPE, pa.string()),
        ("events", pa.int64()),
        ("value_sum", pa.float64()),
        ("last_event_ts", TIMESTAMP),
        ("items", pa.int64()),
    ]
)
ITEM_HOURLY_SCHEMA = pa.schema(
    [
        (ITEM_ID, pa.string()),
        (EVENT_TYPE, pa.string()),
        ("events", pa.int64()),
        ("users", pa.int64()),
        ("value_sum", pa.float64()),
    ]
)
USER_CATEGORY_HOURLY_SCHEMA = pa.schema(
    [
        (USER_ID, pa.string()),
        ("category", pa.string()),
        ("events", pa.int64()),
        ("weight", pa.float64()),
    ]
)

KEYS = {
    USER_HOURLY: (USER_ID, EVENT_TYPE),
    ITEM_HOURLY: (ITEM_ID, EVENT_TYPE),
    USER_CATEGORY_HOURLY: (USER_ID, "category"),
}
SCHEMAS = {
    USER_HOURLY: USER_HOURLY_SCHEMA,
    ITEM_HOURLY: ITEM_HOURLY_SCHEMA,
    USER_CATEGORY_HOURLY: USER_CATEGORY_HOURLY_SCHEMA,
}


def hourly_partials(events: pa.Table) -> dict[str, pa.Table]:
    """All partials of one hour, by dataset.

    `events` are the hour's clean events in order, with `categories` (list of string, may be null)
    and `weight` (double) beside the columns of EVENT_SCHEMA.
    """
    return {
        USER_HOURLY: user_hourly(events),
        ITEM_HOURLY: item_hourly(events),
        USER_CATEGORY_HOURLY: user_category_hourly(events),
    }


def user_hourly(events: pa.Table) -> pa.Table:
    """What each user did, by event type."""
    grouped = events.group_by([USER_ID, EVENT_TYPE], use_threads=False).aggregate(
        [
            (USER_ID, "count"),
            (VALUE, "sum"),
            (EVENT_TS, "max"),
            (ITEM_ID, "count_distinct"),
        ]
    )
    return _table(
        USER_HOURLY_SCHEMA,
        grouped[USER_ID],
        grouped[EVENT_TYPE],
        grouped["user_id_count"],
        pc.fill_null(grouped["value_sum"], 0.0),
        grouped["event_ts_max"],
        grouped["item_id_count_distinct"],
    )


def item_hourly(events: pa.Table) -> pa.Table:
    """What was done to each item, by event type; events without an item are left out."""
    events = events.filter(pc.is_valid(events[ITEM_ID]))
    grouped = events.group_by([ITEM_ID, EVENT_TYPE], use_threads=False).aggregate(
        [(ITEM_ID, "count"), (USER_ID, "count_distinct"), (VALUE, "sum")]
    )
    return _table(
        ITEM_HOURLY_SCHEMA,
        grouped[ITEM_ID],
        grouped[EVENT_TYPE],
        grouped["item_id_count"],
        grouped["user_id_count_distinct"],
        pc.fill_null(grouped["value_sum"], 0.0),
    )


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
    flat = flat.filter(pc.is_valid(flat["category"]))
    grouped = flat.group_by([USER_ID, "category"], use_threads=False).aggregate(
        [("weight", "count"), ("weight", "sum")]
    )
    return _table(
        USER_CATEGORY_HOURLY_SCHEMA,
        grouped[USER_ID],
        grouped["category"],
        grouped["weight_count"],
        grouped["weight_sum"],
    )


def _table(schema: pa.Schema, *columns: pa.ChunkedArray) -> pa.Table:
    return pa.table(list(columns), names=schema.names).cast(schema)
