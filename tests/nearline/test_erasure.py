"""Which rows tell of a forgotten time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from nearline.erasure import owners
from nearline.schema import (
    EVENT_SCHEMA,
    EVENT_TS,
    FEATURE_TS,
    RAW_SCHEMA,
    RECEIVED_TS,
    TIMESTAMP,
    USER_ID,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SINCE = {"ann": NOON, "bob": NOON + 2 * HOUR}


def raw(**given: Any) -> dict[str, Any]:
    return {USER_ID: "ann", EVENT_TS: NOON.isoformat(), RECEIVED_TS: NOON, "source": "api"} | given


def found(rows: list[dict[str, Any]], schema: pa.Schema) -> list[str | None]:
    return owners(pa.Table.from_pylist(rows, schema=schema), SINCE).to_pylist()


def test_events_go_that_happened_before_the_moment_of_their_user() -> None:
    times = [NOON - HOUR, NOON, NOON + HOUR]
    rows = [{USER_ID: user, EVENT_TS: ts} for user in ("ann", "bob", "eve") for ts in times]
    assert found(rows, EVENT_SCHEMA) == ["ann", None, None, "bob", "bob", "bob", None, None, None]


@pytest.mark.parametrize(
    ("row", "gone"),
    [
        (raw(event_ts="2026-03-01T11:59:59Z", received_ts=NOON + HOUR), True),
        (raw(event_ts="2026-03-01 13:30:00+02:00", received_ts=NOON + HOUR), True),
        (raw(event_ts="2026-03-01T11:59:59"), True),
        (raw(received_ts=NOON + HOUR), False),
        # No clock is ahead of the arrival; what cannot be read happened when it arrived.
        (raw(event_ts="2026-03-01T12:04:00Z", received_ts=NOON - HOUR), True),
        (raw(event_ts="at noon", received_ts=NOON - HOUR), True),
        (raw(event_ts=None, received_ts=NOON), False),
    ],
)
def test_a_raw_row_happened_when_its_text_says_but_not_after_it_arrived(
    row: dict[str, Any], gone: bool
) -> None:
    assert found([row], RAW_SCHEMA) == ["ann" if gone else None]


def test_hours_go_that_began_before_and_features_always() -> None:
    hours = [{USER_ID: "ann", "hour": NOON + n * HOUR} for n in (-1, 0)]
    assert found(hours, pa.schema([(USER_ID, pa.string()), ("hour", TIMESTAMP)])) == ["ann", None]
    features = [{USER_ID: user, FEATURE_TS: NOON + 9 * HOUR} for user in ("ann", "eve", None)]
    schema = pa.schema([(USER_ID, pa.string()), (FEATURE_TS, TIMESTAMP)])
    assert found(features, schema) == ["ann", None, None]


@pytest.mark.parametrize(
    ("attributes", "owner"),
    [
        ('[{"user_id": "bob"}]', "bob"),
        ('{"user_id": ["x", {"y": "bob"}]}', "bob"),
        ('{"user_id": "bobby"}', None),
        ('{"bob": 1}', None),
        (None, None),
    ],
)
def test_a_refused_row_without_a_user_is_searched(attributes: str | None, owner: str) -> None:
    row = raw(user_id=None, source="api:refused", attributes=attributes)
    assert found([row], RAW_SCHEMA) == [owner]
    # What an accepted event of somebody else says is the site's.
    assert found([row | {"source": "api"}], RAW_SCHEMA) == [None]
