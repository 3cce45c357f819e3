"""Partials: what an hour of events adds up to, exactly, whatever their order."""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from nearline.schema import EVENT_SCHEMA, LARGEST_VALUE
from spark_jobs.partials import (
    ITEM_HOURLY,
    KEYS,
    SCHEMAS,
    USER_CATEGORY_HOURLY,
    USER_HOURLY,
    USER_QUERY_HOURLY,
    USER_SESSION_HOURLY,
    hourly_partials,
    normal_query,
)

HOUR = datetime(2026, 1, 10, 5, tzinfo=UTC)
TOLD = EVENT_SCHEMA.append(pa.field("categories", pa.list_(pa.string()))).append(
    pa.field("weight", pa.float64())
)
# (minutes, user, item, type, value, query, categories, weight)
EVENTS: list[tuple[Any, ...]] = [
    (0.0, "ada", "alien", "play", 0.1, None, ["horror", "space"], 0.1),
    (10.0, "ada", "alien", "play", 0.2, None, ["horror", "space"], 0.1),
    (40.0, "ada", "brazil", "play", 0.3, "Red  Sea", ["space"], 0.1),
    (55.0, "ada", None, "search", None, " red sea ", None, 0.2),
    (5.0, "bob", "brazil", "play", None, "", [], 0.1),
    (35.1, "bob", "brazil", "play", 0.4, "Red\tsea", ["space"], 0.1),
]


def at(minutes: float) -> datetime:
    return HOUR + timedelta(minutes=minutes)


def told(rows: list[tuple[Any, ...]]) -> pa.Table:
    names = (
        *("user_id", "item_id", "event_type", "value", "query", "categories", "weight"),
        "event_ts",
    )
    events = [dict(zip(names, (*row[1:], at(row[0])), strict=True)) for row in rows]
    return pa.Table.from_pylist(
        [event | {"event_id": str(n)} for n, event in enumerate(events)], schema=TOLD
    )


@pytest.fixture(scope="module")
def partials() -> dict[str, list[tuple[Any, ...]]]:
    shuffled = random.Random(7).sample(EVENTS, len(EVENTS))
    return {
        dataset: [
            tuple(row.values())
            for row in rows.sort_by([(key, "ascending") for key in KEYS[dataset]]).to_pylist()
        ]
        for dataset, rows in hourly_partials(told(shuffled), HOUR).items()
    }


def test_what_a_user_did_by_type(partials: dict[str, list[tuple[Any, ...]]]) -> None:
    assert partials[USER_HOURLY] == [
        ("ada", "play", HOUR, 3, 3, Decimal("0.6"), 2, at(40)),
        ("ada", "search", HOUR, 1, 0, Decimal(0), 0, at(55)),
        ("bob", "play", HOUR, 2, 1, Decimal("0.4"), 1, at(35.1)),
    ]


def test_what_was_done_to_an_item(partials: dict[str, list[tuple[Any, ...]]]) -> None:
    assert partials[ITEM_HOURLY] == [
        ("alien", "play", HOUR, 2, 1, 2, Decimal("0.3")),
        ("brazil", "play", HOUR, 3, 2, 2, Decimal("0.7")),
    ]


def test_what_a_user_gave_to_a_category(partials: dict[str, list[tuple[Any, ...]]]) -> None:
    assert partials[USER_CATEGORY_HOURLY] == [
        ("ada", "horror", HOUR, 2, Decimal("0.2")),
        ("ada", "space", HOUR, 3, Decimal("0.3")),
        ("bob", "space", HOUR, 1, Decimal("0.1")),
    ]


def test_a_gap_of_half_an_hour_goes_on_and_a_longer_one_breaks(
    partials: dict[str, list[tuple[Any, ...]]],
) -> None:
    assert partials[USER_SESSION_HOURLY] == [
        ("ada", HOUR, 4, at(0), at(55), 0, 55 * 60 * 1_000_000),
        ("bob", HOUR, 2, at(5), at(35.1), 1, 0),
    ]


def test_queries_are_told_apart_by_their_words(
    partials: dict[str, list[tuple[Any, ...]]],
) -> None:
    assert partials[USER_QUERY_HOURLY] == [
        ("ada", "red sea", HOUR, 2, at(55)),
        ("bob", "red sea", HOUR, 1, at(35.1)),
    ]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("  Ein\u00a0 \tÄRGER\n", "ein ärger"),
        (" \t ", ""),
        (None, None),
        ("a" * 99 + " b", "a" * 99),
        ("é" * 101, "é" * 100),
    ],
)
def test_a_query_is_written_in_one_way(text: str | None, query: str | None) -> None:
    assert normal_query(pa.chunked_array([pa.array([text], pa.string())])).to_pylist() == [query]


def test_amounts_add_up_exactly_in_any_order() -> None:
    values = [0.1, 0.7, -0.3, 2.675, LARGEST_VALUE, -LARGEST_VALUE, 1e-7] * 50
    rows = [(n / 10, "ada", "alien", "play", value, None, None, 1.0) for n, value in
            enumerate(values)]  # fmt: skip
    sums = set()
    for seed in range(5):
        shuffled = random.Random(seed).sample(rows, len(rows))
        [row] = hourly_partials(told(shuffled), HOUR)[USER_HOURLY].to_pylist()
        sums.add(row["value_sum"])
    assert sums == {Decimal("3.175") * 50}


def test_an_hour_without_events_has_no_partials() -> None:
    for dataset, rows in hourly_partials(TOLD.empty_table(), HOUR).items():
        assert rows.equals(SCHEMAS[dataset].empty_table()), dataset
