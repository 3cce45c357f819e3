"""The door and Spark's clean step judge alike: what one refuses the other never lets in."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from nearline.domains import BUILT_IN, Domain, load_domain
from nearline.intake import Journal, close_hours
from nearline.lake import RAW, Lake
from nearline.schema import LARGEST_VALUE, RAW_SCHEMA, REFUSED
from nearline.settings import settings
from nearline.windows import HOUR, Window
from spark_jobs.clean import Rules, judge
from spark_jobs.partitions import read_files
from spark_jobs.session import spark_session

NOW = datetime(2026, 3, 1, 10, 30, tzinfo=UTC)
STEP = timedelta(microseconds=1)
AGES = [
    timedelta(),
    -4 * HOUR / 60,
    -6 * HOUR / 60,
    48.5 * HOUR,
    48.5 * HOUR + STEP,
    60 * HOUR,
]
IDS = [
    "é",
    "\u2028",
    "x" * 256,
    "x" * 257,
    "\U0001f600" * 256,
    "",
    " ",
    "a\n",
    "a\x7f",
    "\ud800",
    7,
]
ODD = [
    *({"user_id": found} for found in IDS),
    *({"item_id": found} for found in IDS[5:]),
    *({"session_id": found} for found in IDS),
    {"query": "x" * 2000},
    {"query": "x" * 2001},
    {"query": "a\x00b"},
    {"attributes": {"deep": [{"a": None}], "\ud800": "\ud800"}},
    {"attributes": {"x": float("nan")}},
    {"attributes": "{}"},
    {"attributes": None},
    {"value": "0.5"},
    {"value": True},
    {"value": 1e308},
    {"value": 10**400},
    {"value": float("inf")},
    {"event_ts": NOW.timestamp()},
    {"event_ts": "2026-03-01"},
    {"event_ts": "2026-03-01T10:00:00+05:30"},
    {"event_ts": "2026-03-01T10:00:00.123456789Z"},
    {"event_ts": "9999-12-31T23:59:59-05:00"},
    {"event_ts": "10000-01-01T00:00:00Z"},
    {"colour": "red"},
    {"source": "load", "received_ts": "2020-01-01T00:00:00Z"},
    {"event_type": "sneeze"},
    {"event_type": None},
]


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEARLINE_SPARK_MASTER", "local[2]")
        settings.cache_clear()
        with spark_session(settings()) as session:
            yield session
    settings.cache_clear()


def corpus(domain: Domain) -> list[Any]:
    """Every rule of a domain met and broken, and whatever else may come in as JSON."""
    rows: list[Any] = [None, 5, "text", [], {}, {"event_id": "lonely"}]
    for (name, kind), item, age in product(domain.event_types.items(), ["i", None], AGES):
        low, high = (
            (kind.value.min, kind.value.max) if kind.value else (-LARGEST_VALUE, LARGEST_VALUE)
        )
        for value in (None, low, high, low - 0.25, high + 0.25, 2 * high):
            rows.append(
                {
                    "user_id": "u",
                    "item_id": item,
                    "event_type": name,
                    "event_ts": (NOW - age).isoformat(),
                    "value": value,
                }
            )
    good = next(row for row in rows[6:] if row["item_id"] and row["value"] is not None)
    rows += [good | change for change in ODD]
    return [
        row | {"event_id": str(n)} if isinstance(row, dict) and "user_id" in row else row
        for n, row in enumerate(rows)
    ]


@pytest.mark.parametrize("name", BUILT_IN)
def test_spark_lets_in_what_the_door_let_in_and_nothing_else(
    name: str, spark: SparkSession, home: Path
) -> None:
    domain = load_domain(name)
    journal = Journal(settings().intake, domain, late_hours=48, clock=lambda: NOW)
    receipts = journal.append(corpus(domain))
    close_hours(Window.of_hour(NOW), clock=lambda: NOW)
    lake = Lake.open()
    raw = read_files(spark, lake, lake.files(RAW), RAW_SCHEMA)
    catalogue = spark.createDataFrame([("i", ["c"])], "item_id string, categories array<string>")
    nothing = spark.createDataFrame([], "event_id string, received_ts timestamp, arrival_hour long")
    judged = judge(raw, catalogue, Rules(domain, 48, 10_000), nothing)
    rows = judged.select("event_id", "source", "reason").collect()
    assert len(rows) == len(receipts)
    statuses = [receipt.status for receipt in receipts]
    assert statuses.count("accepted") > 20
    assert statuses.count("refused") > 100
    for row in rows:
        if row.source.endswith(REFUSED):
            assert row.reason is not None, row
        else:
            # Only Spark knows the catalogue.
            assert row.reason in (None, "unknown_item"), row
