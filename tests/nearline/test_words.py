import numpy as np
import pytest

from nearline.words import WordVectors, bucket, features, numbers


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
    found = WordVectors(table).of("Red red shoes", None, ["Ballet"])
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
    found = WordVectors(table).of(None, None, None)
    np.testing.assert_allclose(found, any_item / np.linalg.norm(any_item), rtol=1e-5)
