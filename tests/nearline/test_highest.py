import numpy as np
import pytest

from nearline.highest import highest


@pytest.mark.parametrize("limit", [0, 1, 3, 4, 7, 9])
def test_the_highest_come_first_and_equal_ones_in_their_order(limit: int) -> None:
    scores = np.array([1, 3, -np.inf, 3, 2, 3, -np.inf], dtype=np.float32)
    assert highest(scores, limit).tolist() == [1, 3, 5, 4, 0, 2, 6][:limit]


def test_of_nothing_there_is_no_highest() -> None:
    assert highest(np.zeros(0), 3).tolist() == []


def test_it_is_what_sorting_everything_gives() -> None:
    scores = np.random.default_rng(0).integers(0, 50, 1000).astype(np.float32)
    expected = np.argsort(-scores, kind="stable")
    for limit in (1, 7, 10, 500, 999):
        assert highest(scores, limit).tolist() == expected[:limit].tolist()


def test_few_scores_beside_many_that_are_none() -> None:
    scores = np.full(1000, -np.inf, dtype=np.float32)
    scores[::90] = np.arange(12)
    assert highest(scores, 20).tolist() == [*range(990, -1, -90), *range(1, 9)]
