import numpy as np
import pytest

from nearline.lenders import Lenders
from nearline.words import WordVectors, bucket, features, numbers


def told_by(table: np.ndarray) -> WordVectors:
    """Words alone: nobody lends."""
    nobody = np.zeros((1, 1), dtype=np.int64)
    lenders = Lenders.of(nobody, nobody[:, 0] > 0, buckets=len(table) - 1, share=0.5)
    nothing = np.zeros((1, table.shape[1]), dtype=np.float32)
    return WordVectors(table, nothing, nothing[:, 0], lenders)


def test_features_are_words_pairs_and_whole_categories() -> None:
    assert list(features("The Red Shoes", "Ballet.", ["Film Noir"])) == [
        "any",
        "category:film noir",
        "word:the",
        "word:red",
        "word:shoes",
        "pair:the red",
        "pair:red shoes",
        "word:ballet",
    ]


def test_a_bucket_is_the_same_in_every_process() -> None:
    assert [bucket(word, 1000) for word in ("any", "word:red", "category:été")] == [261, 692, 589]


def test_a_vector_is_the_mean_of_its_words_of_length_one() -> None:
    table = np.random.default_rng(0).normal(size=(101, 4)).astype(np.float16)
    found = told_by(table).of("Red red shoes", None, ["Ballet"])
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
    found = told_by(table).of(None, None, None)
    np.testing.assert_allclose(found, any_item / np.linalg.norm(any_item), rtol=1e-5)


def test_items_that_are_alike_lend_their_vectors() -> None:
    table = np.random.default_rng(0).normal(size=(101, 2)).astype(np.float32)
    shoes = numbers("Red shoes", None, None, buckets=100)
    words = np.array([[*shoes, 0], [bucket("any", 100), bucket("word:hat", 100), 0, 0, 0]])
    lenders = Lenders.of(words, np.ones(2, dtype=bool), buckets=100, share=0.5)
    matrix, norms = np.eye(2, dtype=np.float32), np.array([3, 1], dtype=np.float32)
    found = WordVectors(table, matrix, norms, lenders).of("Shoes", None, None)
    mean = table[numbers("Shoes", None, None, buckets=100)].mean(axis=0)
    expected = mean + 0.5 * np.array([3, 0])
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), rtol=1e-5)
