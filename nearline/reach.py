"""How far back the steps look, in days: what retention has to keep."""

WINDOW_DAYS = 30
"""The longest window of the features."""

SEQUENCE_DAYS = 365
"""What a user did longer ago is left out of the sequence, and of what it is made from."""

TAKEN_ITEMS = 1000
"""Of the items that a user is never shown again, the newest; to read more would slow each request.
They reach SEQUENCE_DAYS back, as the sequence does."""

PAIR_DAYS = 180
"""Item pairs that met longer ago have faded to less than 2 % and are left out."""

FEATURE_DAYS = 32
"""The longest ttl of a feature view, and the day in progress."""
