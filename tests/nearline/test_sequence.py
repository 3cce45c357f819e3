from datetime import UTC, datetime

import numpy as np
import pytest

from nearline.sequence import (
    GAP_BUCKETS,
    VALUE_BUCKETS,
    History,
    Vocabulary,
    gap_buckets,
    microseconds,
    model_input,
    pad,
    value_bucket,
)

VOCABULARY = Vocabulary(("a", "b", "c"), ("play", "rating"))
SECOND = 1_000_000


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0, 1), (0.9, 1), (1, 2), (2, 3), (3, 3), (4, 4), (3600, 13), (10**12, GAP_BUCKETS), (-5, 1)],
)
def test_a_gap_falls_in_the_bucket_of_its_power_of_two(seconds: float, bucket: int) -> None:
    found = gap_buckets(np.array([10**15]), 10**15 + int(seconds * SECOND))
    assert found.tolist() == [bucket]


def test_the_newest_known_events_become_the_input() -> None:
    history = History(
        ("a", "new", "b", "c", "a"),
        ("play", "play", "sneeze", "rating", "play"),
        (0, 1 * SECOND, 2 * SECOND, 8 * SECOND, 9 * SECOND),
        (0.0, 0.0, 1.0, 4.0, -0.5),
    )
    found = model_input(history, VOCABULARY, now_us=11 * SECOND, length=2)
    assert found.items.tolist() == [3, 1]
    assert found.types.tolist() == [2, 1]
    assert found.gaps.tolist() == [2, 3]
    assert found.values.tolist() == value_bucket(np.array([4.0, -0.5])).tolist()
    assert found.hours.tolist() == [0, 0], "times that count from nothing have no hours"
    whole = model_input(history, VOCABULARY, now_us=11 * SECOND, length=9)
    assert whole.items.tolist() == [1, 3, 1]
    assert whole.gaps.tolist()[0] == 5, "the gap runs to the next event that the model knows"


def test_nobody_known_gives_an_empty_input() -> None:
    found = model_input(History((), (), (), ()), VOCABULARY, now_us=0, length=4)
    assert [column.shape for column in found] == [(0,)] * 5


def test_the_hour_is_that_of_the_next_event_and_in_the_end_that_of_the_request() -> None:
    morning = microseconds(datetime(2026, 1, 1, 8, 59, 59, tzinfo=UTC))
    history = History(
        ("a", "b", "c"), ("play",) * 3, (morning, morning + SECOND, morning), (0,) * 3
    )
    found = model_input(history, VOCABULARY, now_us=morning + 15 * 3600 * SECOND, length=3)
    assert found.hours.tolist() == [10, 9, 24]


@pytest.mark.parametrize(
    ("values", "apart"),
    [
        ([0.5, 1, 1.5, 2, 3, 4, 5], True),
        ([0.05, 0.2, 0.25, 0.9, 1.0], True),
        ([-1, 1, 0], True),
        ([9.99, 12, 49, 120, 1499], True),
        ([1100, 1200], False),
        ([1e9, 1e300], False),
        ([1e-300, 0.001], False),
    ],
)
def test_values_fall_in_buckets_of_their_size(values: list[float], apart: bool) -> None:
    found = value_bucket(np.array(values))
    assert len(set(found.tolist())) == (len(values) if apart else 1)
    assert found.min() >= 0
    assert found.max() <= VALUE_BUCKETS
    mirrored = value_bucket(-np.array(values))
    assert np.isin(np.abs(found - mirrored), [0, VALUE_BUCKETS // 2]).all()


def test_no_value_is_padding() -> None:
    assert value_bucket(np.array([0.0, np.nan, np.inf])).tolist() == [0, 0, 0]


def test_padding_is_at_the_right_end() -> None:
    one = model_input(History(("b",), ("play",), (0,), (1,)), VOCABULARY, now_us=0, length=3)
    history = History(("a", "c"), ("play",) * 2, (0, 0), (0, 0))
    two = model_input(history, VOCABULARY, now_us=0, length=3)
    batch = pad([one, two], 3)
    assert batch.items.tolist() == [[2, 0, 0], [1, 3, 0]]
    assert batch.gaps.tolist() == [[1, 0, 0], [1, 1, 0]]
