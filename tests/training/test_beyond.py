from itertools import combinations

import numpy as np
import pytest
from scipy import sparse

from training import beyond
from training.beyond import contents_of, popularity, segments
from training.sequences import as_interactions, vocabulary_of

COUNTS = np.array([6, 1, 1, 0])
WORDS = np.array([[1, 2, 0], [1, 3, 0], [4, 0, 0], [1, 2, 2]])
LISTS = np.full((3, 10), -1, dtype=np.int32)
LISTS[0, :2], LISTS[1, :3], LISTS[2, :1] = [0, 3], [0, 1, 2], [2]


def about_lists(
    lists: np.ndarray, counts: np.ndarray, contents: sparse.csr_array | None
) -> dict[str, float]:
    """Each list is of another user."""
    return beyond.about_lists(lists, np.arange(len(lists)), counts, contents, seed=0)


def test_novelty_is_the_information_of_what_is_shown() -> None:
    bits = -np.log2(np.array([7, 2, 2, 1]) / 12)
    expected = bits[[0, 3, 0, 1, 2, 2]].mean()
    assert about_lists(LISTS, COUNTS, contents_of(WORDS))["novelty@10"] == pytest.approx(
        expected, abs=1e-6
    )


def test_popularity_is_the_place_among_all_items() -> None:
    found = about_lists(LISTS, COUNTS, contents_of(WORDS))["popularity@10"]
    assert found == pytest.approx(np.mean([1, 0, 1, 0.5, 0.5, 0.5]))
    blind = np.tile(np.arange(4, dtype=np.int32), (5, 1))
    assert about_lists(blind, COUNTS, contents_of(WORDS))["popularity@10"] == 0.5


def test_diversity_is_how_unlike_the_items_of_a_list_are() -> None:
    sets = [set(row[row > 0].tolist()) for row in WORDS]

    def cosine(one: int, other: int) -> float:
        return len(sets[one] & sets[other]) / np.sqrt(len(sets[one]) * len(sets[other]))

    lists = [[0, 3], [0, 1, 2]]
    expected = 1 - np.mean([np.mean([cosine(*p) for p in combinations(each, 2)]) for each in lists])
    assert about_lists(LISTS, COUNTS, contents_of(WORDS))["diversity@10"] == pytest.approx(
        expected, abs=1e-6
    )
    assert "diversity@10" not in about_lists(LISTS, COUNTS, contents_of(WORDS[:, :1])), (
        "nothing but ids"
    )


def test_intervals_are_over_users() -> None:
    two = np.tile(np.array([[0, 1], [2, 3]], dtype=np.int32), (50, 1))
    counts, contents = np.array([6, 1, 1, 0]), contents_of(WORDS)
    many, one = np.arange(100), np.zeros(100, dtype=int)
    apart, same = (
        beyond.about_lists(two, users, counts, contents, seed=0) for users in (many, one)
    )
    for name in ("novelty@10", "popularity@10", "diversity@10"):
        assert apart[f"{name}_low"] < apart[name] < apart[f"{name}_high"]
        assert same[f"{name}_low"] == same[name] == same[f"{name}_high"], "nobody else to draw"


def test_nothing_is_said_of_no_lists() -> None:
    assert about_lists(LISTS[:0], COUNTS, contents_of(WORDS)) == {}
    assert about_lists(np.full((2, 10), -1, dtype=np.int32), COUNTS, contents_of(WORDS)) == {}


def test_parts_are_told_by_what_was_learned_of_user_and_item() -> None:
    rare = [f"r{n}" for n in range(9)]
    users = {f"u{n}": ["hit", *rare[n : n + 2], "hit", "new"] for n in range(8)}
    users |= {"long": ["hit"] * 25 + ["r0"], "stranger": ["hit", "r1"]}
    vocabulary = vocabulary_of(users)
    data = as_interactions(users, vocabulary)
    last = np.flatnonzero(np.append(data.users[1:] != data.users[:-1], True))
    stranger = data.user_ids.index("stranger")
    learned = np.setdiff1d(np.flatnonzero(data.states >= 0), last)
    learned = learned[data.users[learned] != stranger]
    counts = popularity(data, learned, items=len(vocabulary.item_ids))
    parts = segments(data, last, counts, learned)
    who = {name: {data.user_ids[u] for u in data.users[last][part]} for name, part in parts.items()}
    eight = {f"u{n}" for n in range(8)}
    assert who == {
        "cold users": {"stranger"},
        "users of up to 5 events": eight | {"stranger"},
        "users of over 20 events": {"long"},
        "cold items": eight,
        "rare items": {"long"},
        "popular items": {"stranger"},
    }
