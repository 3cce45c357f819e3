from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from nearline.sequence import Vocabulary
from training.baselines import (
    DAY_US,
    all_baselines,
    content_scorer,
    content_vectors,
    decayed_popularity,
    item_neighbours,
    neighbour_scorer,
    popularity,
)
from training.dataset import Interactions, interactions

DAY = 86_400
VOCABULARY = Vocabulary(tuple("abcd"), ("view",))
Events = Callable[[str], pa.Table]


@pytest.fixture
def data(events: Events) -> Interactions:
    rows = f"""
        u1 a view 0
        u1 b view {DAY}
        u1 c view {9 * DAY}
        u2 a view 10
        u2 b view {2 * DAY}
        u2 a view {8 * DAY}
        u2 d view {10 * DAY}
    """
    return interactions(events(rows), VOCABULARY, ["view"])


def at(data: Interactions, days: float) -> int:
    return int(data.times.min() + days * DAY_US)


def test_popularity_counts_only_what_was_before(data: Interactions) -> None:
    assert popularity(data, items=4, before=at(data, 10)).tolist() == [3, 2, 1, 0]
    assert popularity(data, items=4, before=at(data, 9)).tolist() == [3, 2, 0, 0]
    assert popularity(data, items=4, before=at(data, 10), days=2).tolist() == [1, 0, 1, 0]


def test_worth_is_halved_in_a_week(data: Interactions) -> None:
    found = decayed_popularity(data, items=4, now=at(data, 9), since=at(data, 0.5))
    np.testing.assert_allclose(found, [0.5 ** (1 / 7), 0.5 ** (8 / 7) + 0.5, 0, 0], rtol=1e-6)


def test_neighbours_are_counted_near_one_another_and_before(data: Interactions) -> None:
    found = item_neighbours(data, items=4, before=at(data, 10))
    # a and b: once in u1, twice in u2; sizes are a 3, b 2, c 1; smoothing is 10.
    assert found.rows[0, :3].tolist() == [1, 2, -1]
    np.testing.assert_allclose(found.likeness[0, :2], [3 / (6**0.5 + 10), 1 / (3**0.5 + 10)])
    assert found.rows[3, 0] == -1


def test_item_to_item_adds_up_likeness_to_what_was_touched(data: Interactions) -> None:
    neighbours = item_neighbours(data, items=4, before=at(data, 10))
    (scores,) = neighbour_scorer(data, neighbours)(np.array([2]))
    ab, ac, bc = 3 / (6**0.5 + 10), 1 / (3**0.5 + 10), 1 / (2**0.5 + 10)
    np.testing.assert_allclose(scores, [ab, ab, ac + bc, 0], rtol=1e-6)


def test_content_prefers_the_alike(data: Interactions) -> None:
    content = np.array([[1, 2, 3], [1, 2, 4], [1, 5, 6], [1, 2, 3]])
    vectors = content_vectors(content, seed=0)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    (scores,) = content_scorer(data, vectors)(np.array([1]))
    assert scores[0] == pytest.approx(1, rel=1e-5)
    assert scores[3] == pytest.approx(1, rel=1e-5)
    assert scores[1] > scores[2]


def test_a_baseline_does_not_change_with_what_comes_later(
    data: Interactions, events: Events
) -> None:
    content = np.array([[1, 2], [1, 3], [1, 2], [1, 4]])
    cut = at(data, 8.5)
    longer = events(f"u1 a view 0\n u1 b view {DAY}\n u2 a view 10\n u2 b view {2 * DAY}")
    past = pa.concat_tables([longer, events(f"u2 a view {8 * DAY}\n u1 d view {9 * DAY}")])
    other = interactions(past, VOCABULARY, ["view"])
    targets = [np.flatnonzero(d.users == 0)[[1, 2]] for d in (data, other)]
    for name, score in all_baselines(data, content, before=cut, seed=0).items():
        again = all_baselines(other, content, before=cut, seed=0)[name]
        np.testing.assert_array_equal(score(targets[0]), again(targets[1]), err_msg=name)


def test_no_events_are_no_error(events: Events) -> None:
    data = interactions(events("u1 z view 0"), VOCABULARY, ["view"])
    for score in all_baselines(data, np.ones((4, 2), dtype=int), before=1, seed=0).values():
        assert score(data.targets()).shape == (0, 4)
