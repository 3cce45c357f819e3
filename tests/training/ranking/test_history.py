"""Features as they stood at the hour of a request."""

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np

from feature_repo.services import ranking_v1
from nearline.ranking import ITEM_FEATURES, USER_FEATURES, USER_NUMBERS
from nearline.sequence import microseconds
from nearline.windows import HOUR
from training.ranking.history import items_at, trending_at, users_at

T0 = datetime(2026, 1, 1, 10, tzinfo=UTC)
HOURS = np.array([microseconds(T0 + n * HOUR) for n in range(3)])


def test_all_that_a_ranker_reads_is_in_the_feature_service() -> None:
    there = {
        f"{view.name}:{feature.name}"
        for view in ranking_v1.feature_view_projections
        for feature in view.features
    }
    assert {*USER_FEATURES, *ITEM_FEATURES} <= there


def test_an_item_is_told_as_it_stood_and_as_unknown_before(known: Callable[..., None]) -> None:
    known("item_popularity", T0 + HOUR, {"item_id": "a", "events_1h": 1, "velocity": 0.5})
    known("item_popularity", T0 + 2 * HOUR, {"item_id": "a", "events_1h": 2, "velocity": None})
    found = items_at(["a", "b", "a", "a"], HOURS[[2, 2, 0, 1]])
    assert found.dtype == np.float32
    events = found[:, ITEM_FEATURES.index("item_popularity:events_1h")]
    velocity = found[:, ITEM_FEATURES.index("item_popularity:velocity")]
    np.testing.assert_array_equal(events, [2, np.nan, np.nan, 1])
    np.testing.assert_array_equal(velocity, [np.nan, np.nan, np.nan, 0.5])


def test_a_user_is_told_as_they_stood(known: Callable[..., None]) -> None:
    tastes = {"categories": ["noir", "war"], "affinities": [0.75, 0.25], "diversity": 0.8}
    known("user_category_affinity", T0 + HOUR, {"user_id": "ann"} | tastes)
    habits = {"hours_of_day": [n / 24 for n in range(24)], "weekend_share": 0.5}
    known("user_habits", T0 + 2 * HOUR, {"user_id": "ann"} | habits)
    stranger, before, after = users_at(["bob", "ann", "ann"], HOURS[[2, 1, 2]])
    assert (stranger.affinities, len(stranger.hours)) == ({}, 0)
    assert np.isnan(stranger.numbers).all()
    assert before.affinities == {"noir": 0.75, "war": 0.25}
    assert len(before.hours) == 0
    assert list(after.hours) == habits["hours_of_day"]
    assert after.numbers[USER_NUMBERS.index("user_habits:weekend_share")] == 0.5


def test_the_trending_list_of_each_hour(known: Callable[..., None]) -> None:
    known("trending", T0 + HOUR, {"surface": "all", "item_ids": ["b", "a"], "scores": [2.0, 1.0]})
    assert trending_at(HOURS[[0, 1, 2]]) == [[], [("b", 2.0), ("a", 1.0)], [("b", 2.0), ("a", 1.0)]]
