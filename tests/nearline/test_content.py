from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from nearline.content import ContentVectors
from nearline.given import Given, GivenVectors
from nearline.lenders import Lenders
from nearline.words import bucket, numbers


class Item(NamedTuple):
    """What an item says about itself."""

    title: str | None = None
    text: str | None = None
    categories: Sequence[str] | None = None
    given: Given | None = None


def told_by(table: np.ndarray) -> ContentVectors:
    """Words alone: nobody lends."""
    nobody = np.zeros((1, 1), dtype=np.int64)
    lenders = Lenders.of(nobody, nobody[:, 0] > 0, buckets=len(table) - 1, share=0.5)
    nothing = np.zeros((1, table.shape[1]), dtype=np.float32)
    return ContentVectors(table, nothing, nothing[:, 0], lenders)


def test_a_vector_is_the_mean_of_its_words_of_length_one() -> None:
    table = np.random.default_rng(0).normal(size=(101, 4)).astype(np.float16)
    found = told_by(table).of([Item("Red red shoes", categories=["Ballet"])])[0]
    rows = numbers("Red red shoes", None, ["Ballet"], buckets=100)
    names = ("any", "category:ballet", "word:red", "word:shoes", "pair:red red", "pair:red shoes")
    assert rows == [bucket(name, 100) for name in names]
    mean = table[rows].astype(np.float32).mean(axis=0)
    assert found.dtype == np.float32
    assert np.linalg.norm(found) == pytest.approx(1)
    assert found @ mean / np.linalg.norm(mean) == pytest.approx(1)


def test_without_words_a_vector_is_that_of_any_item() -> None:
    table = np.random.default_rng(0).normal(size=(101, 4)).astype(np.float32)
    any_item = table[bucket("any", 100)]
    found = told_by(table).of([Item()])[0]
    np.testing.assert_allclose(found, any_item / np.linalg.norm(any_item), rtol=1e-5)


def test_items_that_are_alike_lend_their_vectors() -> None:
    table = np.random.default_rng(0).normal(size=(101, 2)).astype(np.float32)
    shoes = numbers("Red shoes", None, None, buckets=100)
    words = np.array([[*shoes, 0], [bucket("any", 100), bucket("word:hat", 100), 0, 0, 0]])
    lenders = Lenders.of(words, np.ones(2, dtype=bool), buckets=100, share=0.5)
    matrix, norms = np.eye(2, dtype=np.float32), np.array([3, 1], dtype=np.float32)
    found = ContentVectors(table, matrix, norms, lenders).of([Item("Shoes")])[0]
    mean = table[numbers("Shoes", None, None, buckets=100)].mean(axis=0)
    expected = mean + 0.5 * np.array([3, 0])
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), rtol=1e-5)


@pytest.fixture
def given() -> GivenVectors:
    """Texts of two numbers and images of one; three items lend by theirs, rows 0, 2 and 3."""
    rng = np.random.default_rng(3)
    vectors = np.array([[1, 0, 0], [0.6, 0.8, 1], [0, -1, 0]], dtype=np.float16)
    projection = rng.normal(size=(3, 4)).astype(np.float32)
    return GivenVectors((2, 1, 0), projection, np.array([0, 2, 3]), vectors)


def test_a_row_of_given_vectors_is_made_of_vectors_of_length_one(given: GivenVectors) -> None:
    found = given.row({"text_vector": [3, 4], "image_vector": [-2], "audio_vector": [1]})
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, [0.6, 0.8, -1], atol=1e-3)
    assert given.row({"text_vector": [0, 0]}).tolist() == [0, 0, 0]
    assert given.row({"text_vector": [1, 0, 0]}).tolist() == [0, 0, 0], "of another length"


def test_items_lend_by_the_cosines_of_their_given_vectors(given: GivenVectors) -> None:
    row = given.row({"text_vector": [0.8, 0.6], "image_vector": [5]})
    [(items, shares)] = given.closest(row[None])
    assert items.tolist() == [2, 0], "the third points away"
    cosines = np.array([0.8 * 0.6 + 0.6 * 0.8 + 1, 0.8])
    np.testing.assert_allclose(shares, cosines / cosines.sum(), rtol=1e-3)


def test_no_item_lends_to_itself(given: GivenVectors) -> None:
    assert [items.tolist() for items, _ in given.closest(given.vectors, but=given.items)] == [
        [2],
        [0],
        [],
    ]


def test_whom_words_find_is_not_sought_by_given_vectors(
    given: GivenVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_words, nobody = (np.array([7]), np.ones(1)), (np.zeros(0, np.int64), np.zeros(0))
    loans = [by_words, nobody]
    given.fill(loans, given.vectors[:2], but=np.array([0, 2]))
    assert [items.tolist() for items, _ in loans] == [[7], [0]]
    monkeypatch.setattr(GivenVectors, "closest", lambda *_, **__: pytest.fail("all were read"))
    given.fill([by_words, nobody], np.array([[1, 0, 0], [0, 0, 0]], dtype=np.float16))


def test_what_was_written_of_given_vectors_is_read_back(
    given: GivenVectors, tmp_path: Path
) -> None:
    given.save(tmp_path)
    again = GivenVectors.read(tmp_path)
    assert again.widths == given.widths
    for name in ("projection", "items", "vectors"):
        np.testing.assert_array_equal(getattr(again, name), getattr(given, name))


def test_given_vectors_count_beside_words_and_lend_where_these_find_nobody(
    given: GivenVectors,
) -> None:
    rng = np.random.default_rng(0)
    table, matrix = rng.normal(size=(101, 4)), rng.normal(size=(4, 4))
    table, matrix = table.astype(np.float32), matrix.astype(np.float32)
    norms = np.arange(1, 5, dtype=np.float32)
    hat = np.array([numbers("Hat", None, None, buckets=100), *[[bucket("any", 100), 0]] * 3])
    lenders = Lenders.of(hat, np.ones(4, dtype=bool), buckets=100, share=0.5)
    content = ContentVectors(table, matrix, norms, lenders, given)
    own = {"text_vector": [0.0, -2.0]}

    def expected(title: str | None, lender: int) -> np.ndarray:
        words = table[numbers(title, None, None, buckets=100)].mean(axis=0)
        vector = words - given.projection[1] + 0.5 * norms[lender] * matrix[lender]
        return vector / np.linalg.norm(vector)

    found = content.of([Item(given=own), Item("Hat", given=own), Item("Hat")])
    np.testing.assert_allclose(found[:2], [expected(None, 3), expected("Hat", 0)], rtol=1e-4)
    assert not np.allclose(found[2], found[1])
