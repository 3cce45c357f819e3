from math import log, sqrt
from pathlib import Path

import numpy as np
import pytest

from nearline import lenders
from nearline.lenders import Lenders

WORDS = np.array(
    [
        [1, 2, 3],
        [1, 2, 4],
        [1, 4, 0],
        [1, 2, 3],
        [1, 5, 0],
    ]
)
"""Five items; all have word 1, and only the last one has word 5."""
LEARNED = np.array([True, True, True, False, True])


@pytest.fixture
def found() -> Lenders:
    return Lenders.of(WORDS, LEARNED, buckets=6, share=0.5)


def test_the_likest_items_lend_by_their_cosine_of_rare_words(found: Lenders) -> None:
    items, shares = found.closest([1, 2, 3])
    two, three = log(4 / 2), log(4 / 1)
    cosines = np.array([(two**2 + three**2) / sqrt(two**2 + three**2), two**2 / sqrt(2 * two**2)])
    assert items.tolist() == [0, 1], "3 is not learned, 2 and 4 share the word of all alone"
    np.testing.assert_allclose(shares, cosines / cosines.sum(), rtol=1e-6)


def test_an_item_does_not_lend_to_itself(found: Lenders) -> None:
    assert found.closest(WORDS[0], but=0)[0].tolist() == [1]
    assert [len(part) for part in found.closest(WORDS[4], but=4)] == [0, 0]


@pytest.mark.parametrize("words", [[], [1], [6], [0]])
def test_words_that_tell_nothing_find_nobody(found: Lenders, words: list[int]) -> None:
    assert [len(part) for part in found.closest(words)] == [0, 0]


def test_where_nothing_is_learned_nobody_lends() -> None:
    none = Lenders.of(WORDS, np.zeros(5, dtype=bool), buckets=6, share=0.5)
    assert len(none.closest([1, 2, 3])[0]) == 0


def test_of_a_word_that_many_have_those_stay_that_say_little_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lenders, "_CHAMPIONS", 1)
    few = Lenders.of(WORDS, LEARNED, buckets=6, share=0.5)
    assert few.closest([4])[0].tolist() == [2], "item 1 says more than word 4"


def test_only_the_closest_lend(monkeypatch: pytest.MonkeyPatch, found: Lenders) -> None:
    monkeypatch.setattr(lenders, "CLOSEST", 1)
    items, shares = found.closest([2, 3])
    assert (items.tolist(), shares.tolist()) == ([0], [1.0])


def test_what_was_saved_is_read_back(found: Lenders, tmp_path: Path) -> None:
    found.save(tmp_path / "lenders.npz")
    again = Lenders.read(tmp_path / "lenders.npz")
    assert again.share == found.share
    for name in ("starts", "items", "rarity", "lengths"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
        assert getattr(again, name).dtype == getattr(found, name).dtype
