"""Events and items as tables: their columns, types, and what bounds them."""

from datetime import timedelta

import pyarrow as pa

from nearline.columns import (
    EVENT_ID,
    EVENT_TS,
    EVENT_TYPE,
    ITEM_ID,
    RECEIVED_TS,
    USER_ID,
    VALUE,
)
from nearline.columns import FEATURE_TS as FEATURE_TS  # tables of features have it, made elsewhere

TIMESTAMP = pa.timestamp("us", tz="UTC")

EVENT_SCHEMA = pa.schema(
    [
        (EVENT_ID, pa.string()),
        (USER_ID, pa.string()),
        (ITEM_ID, pa.string()),
        (EVENT_TYPE, pa.string()),
        (EVENT_TS, TIMESTAMP),
        (VALUE, pa.float64()),
        ("query", pa.string()),
        ("session_id", pa.string()),
        ("request_id", pa.string()),
        ("surface", pa.string()),
        ("attributes", pa.string()),
        (RECEIVED_TS, TIMESTAMP),
    ]
)
"""Clean events. `attributes` is JSON text."""

RAW_SCHEMA = pa.schema(
    [pa.field(f.name, pa.string()) for f in EVENT_SCHEMA if f.name != RECEIVED_TS]
    + [pa.field("source", pa.string()), pa.field(RECEIVED_TS, TIMESTAMP)]
)
"""Events as received: every field is text, so that a malformed one can be kept."""

REFUSED = ":refused"
"""Ends the `source` of a raw row that was refused when it came in: no later step may accept it."""

QUARANTINE_SCHEMA = RAW_SCHEMA.append(pa.field("reason", pa.string()))
"""Refused raw rows, with the reason."""

MODALITIES = ("text_vector", "image_vector", "audio_vector")
"""Vectors that an item may be given, made by anyone's encoders."""

ITEM_SCHEMA = pa.schema(
    [
        (ITEM_ID, pa.string()),
        ("title", pa.string()),
        ("text", pa.string()),
        ("categories", pa.list_(pa.string())),
        ("created_ts", TIMESTAMP),
        ("available", pa.bool_()),
        ("attributes", pa.string()),
        *((name, pa.list_(pa.float32())) for name in MODALITIES),
    ]
)
"""The catalogue. `attributes` is JSON text; missing modalities are null."""

CLOCK_SKEW = timedelta(minutes=5)
"""A client's clock may run ahead by this much: such an event happened when it arrived."""

LARGEST_VALUE = 1e12
"""The largest size of a value, either sign; a domain file may set less."""
