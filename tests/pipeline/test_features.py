"""Raw events to feature marts, through real Spark and real dbt, for each domain."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from nearline.domains import load_domain
from nearline.errors import MissingPartition
from nearline.lake import EVENTS, QUARANTINE, RAW, Lake
from nearline.schema import EVENT_SCHEMA, QUARANTINE_SCHEMA, RAW_SCHEMA
from nearline.settings import settings
from nearline.sources.dataset import append_raw, upsert_items
from nearline.sources.synthetic import Stream, StreamSpec
from nearline.windows import HOUR, Window
from pipeline import steps

DOMAIN = "commerce"
END = datetime(2026, 1, 4, tzinfo=UTC)
SPEC = StreamSpec(users=20, items=30, events=600, days=3, end=END, seed=5)
WINDOW = Window(SPEC.start, SPEC.end)
ARRIVED = END - timedelta(minutes=5)
ACTIVITY = pa.schema(
    [("user_id", pa.string()), ("feature_ts", EVENT_SCHEMA.field("event_ts").type)]
)


def dirty(good: dict[str, object]) -> pa.Table:
    """Rows that must be refused, one for each reason, and one that is only late."""
    changes = {
        "bad_event_ts": {"event_ts": "soon"},
        "future_event": {"event_ts": "2026-01-05T00:00:00+00:00"},
        "missing_user_id": {"user_id": None},
        "unknown_event_type": {"event_type": "sneeze"},
        "unknown_item": {"item_id": "no-such-item"},
        "bad_attributes": {"attributes": "{"},
        "late_but_fine": {"event_ts": (ARRIVED - 20 * HOUR).isoformat()},
        "too_late": {"event_ts": (ARRIVED - 60 * HOUR).isoformat()},
    }
    base = good | {"event_ts": ARRIVED.isoformat(), "received_ts": ARRIVED}
    rows = [base | {"event_id": name} | change for name, change in changes.items()]
    twice = base | {"event_id": "twice"}
    return pa.Table.from_pylist([*rows, twice, twice | {"session_id": "other"}], schema=RAW_SCHEMA)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, spark: object) -> Iterator[Lake]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEARLINE_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("NEARLINE_DOMAIN", DOMAIN)
        settings.cache_clear()
        stream, found = Stream(SPEC, load_domain(DOMAIN)), Lake.open()
        upsert_items(found, stream.items())
        days = list(stream.batches())
        good = next(row for row in days[-1].to_pylist() if row["item_id"])
        for table in (*days, dirty(good)):
            append_raw(found, table)
        found.mark_complete(RAW, WINDOW, rows=SPEC.events)
        steps.spark_features(WINDOW)
        steps.dbt_marts(WINDOW)
        yield found
    settings.cache_clear()


def test_no_raw_row_vanishes_and_each_refusal_has_its_reason(lake: Lake) -> None:
    raw = lake.read(RAW, schema=RAW_SCHEMA)
    events = lake.read(EVENTS, schema=EVENT_SCHEMA)
    refused = lake.read(QUARANTINE, schema=QUARANTINE_SCHEMA)
    assert raw.num_rows == events.num_rows + refused.num_rows
    reasons = dict(zip(refused["event_id"].to_pylist(), refused["reason"].to_pylist(), strict=True))
    assert reasons.pop("twice") == "duplicate"
    assert "late_but_fine" not in reasons
    assert all(event_id == reason for event_id, reason in reasons.items())
    assert len(reasons) == 7


def test_a_late_event_lies_in_the_hour_in_which_it_happened(lake: Lake) -> None:
    hour = lake.read(EVENTS, Window.of_hour(ARRIVED - 20 * HOUR), schema=EVENT_SCHEMA)
    assert "late_but_fine" in hour["event_id"].to_pylist()


def test_running_again_gives_the_same_bytes(lake: Lake) -> None:
    files = [path for path in Path(lake.root).rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    steps.spark_features(Window(SPEC.end - 6 * HOUR, SPEC.end))
    steps.dbt_marts(Window(SPEC.end - 6 * HOUR, SPEC.end))
    assert {path for path, old in before.items() if path.read_bytes() != old} == set()


def test_a_feature_row_counts_exactly_the_events_before_it(lake: Lake) -> None:
    schema = ACTIVITY.append(pa.field("events_24h", pa.int64()))
    rows = lake.read("features/user_activity", schema=schema).to_pylist()
    events = lake.read(EVENTS, schema=EVENT_SCHEMA).to_pylist()
    assert len(rows) > SPEC.users
    for row in rows:
        end = row["feature_ts"]
        counts = Counter(e["user_id"] for e in events if end - 24 * HOUR <= e["event_ts"] < end)
        assert row["events_24h"] == counts[row["user_id"]], row


def test_an_hour_that_was_never_closed_is_refused(lake: Lake) -> None:
    with pytest.raises(MissingPartition, match="raw is not complete"):
        steps.spark_features(Window(SPEC.end, SPEC.end + HOUR))
