import numpy as np
import pytest

from nearline.sequence import (
    GAP_BUCKETS,
    History,
    Vocabulary,
    gap_buckets,
    model_input,
    pad,
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
    )
    found = model_input(history, VOCABULARY, now_us=11 * SECOND, length=2)
    assert found.items.tolist() == [3, 1]
    assert found.types.tolist() == [2, 1]
    assert found.gaps.tolist() == [2, 3]
    whole = model_input(history, VOCABULARY, now_us=11 * SECOND, length=9)
    assert whole.items.tolist() == [1, 3, 1]
    assert whole.gaps.tolist()[0] == 5, "the gap runs to the next event that the model knows"


def test_nobody_known_gives_an_empty_input() -> None:
    found = model_input(History((), (), ()), VOCABULARY, now_us=0, length=4)
    assert [column.shape for column in found] == [(0,)] * 3


def test_padding_is_at_the_right_end() -> None:
    one = model_input(History(("b",), ("play",), (0,)), VOCABULARY, now_us=0, length=3)
    two = model_input(History(("a", "c"), ("play",) * 2, (0, 0)), VOCABULARY, now_us=0, length=3)
    batch = pad([one, two], 3)
    assert batch.items.tolist() == [[2, 0, 0], [1, 3, 0]]
    assert batch.gaps.tolist() == [[1, 0, 0], [1, 1, 0]]
