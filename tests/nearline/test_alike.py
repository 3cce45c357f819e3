"""What is alike by content, as literal rows."""

from math import log

import numpy as np
import pytest

from nearline import alike
from nearline.alike import Alike, proposed, summed
from nearline.given import GivenVectors
from nearline.lenders import Lenders, Loan

RED, HAT, SHOE, ANY = 1, 2, 3, 4
WORDS = np.array([[ANY, RED, HAT], [ANY, RED, SHOE], [ANY, HAT, 0], [ANY, 0, 0], [ANY, 0, 0]])
VECTORS = np.array([[1, 0], [0.6, 0.8], [0, 1]], dtype=np.float16)


@pytest.fixture
def found() -> Alike:
    """Five items told by words; the last three were given vectors of a text."""
    lenders = Lenders.of(WORDS, np.ones(5, dtype=bool), buckets=4, share=0.5)
    projection = np.zeros((2, 2), dtype=np.float32)
    return Alike(lenders, GivenVectors((2, 0, 0), projection, np.array([2, 3, 4]), VECTORS))


def rows_of(loans: list[Loan]) -> list[list[int]]:
    return [rows.tolist() for rows, _ in loans]


def test_the_likest_by_words_are_found_and_never_the_item_itself(found: Alike) -> None:
    loans = found.closest([WORDS[0], WORDS[0]], np.array([0, -1]))
    assert rows_of(loans) == [[2, 1], [0, 2, 1]], "a new item has no row of its own"
    red, hat, shoe = (log(5 / count) for count in (2, 2, 1))
    cosines = np.array([hat**2 / hat, red**2 / np.hypot(red, shoe)])
    np.testing.assert_allclose(loans[0][1], cosines / cosines.sum(), rtol=1e-6)


def test_where_words_find_nobody_given_vectors_do(found: Alike) -> None:
    silent, stranger = [[ANY], [ANY]], np.array([3, -1])
    assert rows_of(found.closest(silent, stranger)) == [[4, 2], []]
    assert rows_of(found.closest([[ANY]], np.array([0]))) == [[]], "it was given none"


def test_no_look_up_reads_more_than_so_many_numbers(
    found: Alike, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alike, "MOST_READ", 4)
    silent, rows = [[ANY]] * 3, np.array([2, 3, 4])
    assert rows_of(found.closest(silent, rows)) == [[], [4, 2], []], "every second one is found"


def test_likeness_adds_up_over_items_and_what_is_not_allowed_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loans = [
        (np.array([4, 1], dtype=np.int32), np.array([0.75, 0.25])),
        (np.zeros(0, dtype=np.int32), np.zeros(0)),
        (np.array([2, 0, 1], dtype=np.int32), np.array([0.5, 0.25, 0.25])),
    ]
    allowed = np.array([True, True, True, True, False])
    assert proposed(loans, allowed) == [(1, 0.5), (2, 0.5), (0, 0.25)]
    assert proposed(loans, np.zeros(5, dtype=bool)) == []
    monkeypatch.setattr(alike, "PROPOSED", 1)
    assert proposed(loans, allowed) == [(1, 0.5)]


def test_a_sum_counts_each_time_that_a_row_stands_there() -> None:
    rows, allowed = np.array([2, 0, 2]), np.ones(3, dtype=bool)
    assert summed(rows, np.array([0.25, 1, 0.5]), allowed, 5) == [(0, 1.0), (2, 0.75)]
