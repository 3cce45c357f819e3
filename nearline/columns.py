"""Names of columns and of attributes that rules read, in one place."""

USER_ID = "user_id"
ITEM_ID = "item_id"
EVENT_ID = "event_id"
EVENT_TYPE = "event_type"
EVENT_TS = "event_ts"
VALUE = "value"
RECEIVED_TS = "received_ts"
FEATURE_TS = "feature_ts"

PRICE = "price"
HIDDEN = "hidden"
EXPIRES_TS = "expires_ts"
"""Attributes of an item that rules read: a number; true keeps the item from being shown; a time
(ISO 8601, UTC without a zone) from which on it is not shown."""
