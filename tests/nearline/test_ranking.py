"""What a ranker reads, as literal numbers."""

import numpy as np

from nearline.ranking import (
    COLUMNS,
    ITEM_FEATURES,
    RANKED,
    SOURCES,
    USER_NUMBERS,
    Context,
    RankedUser,
    matrix,
    named,
    pooled,
)

LISTS = {
    "encoder": [("a", 0.8), ("b", 0.4)],
    "cooccurrence": [("c", 5.0), ("a", 1.0)],
    "alike": [("b", 0.8), ("c", 0.2)],
    "trending": [],
}
HOUR_US = 3_600_000_000
SATURDAY_AT_SEVEN = (2 * 24 + 7) * HOUR_US  # 1970 began on a Thursday
NAN = np.nan


def told(**changes: object) -> dict[str, np.ndarray]:
    how = {
        "vectors": np.eye(3, dtype=np.float32),
        "newest": np.array([[0, 1, 0], [0.6, 0, 0.8]], dtype=np.float32),
        "items": np.arange(3 * len(ITEM_FEATURES), dtype=np.float32).reshape(3, -1),
        "categories": [["noir", "war"], ["farce"], []],
        "user": RankedUser.of(
            {
                "user_activity__events_24h": 3,
                "user_habits__hours_of_day": [hour / 24 for hour in range(24)],
                "user_category_affinity__categories": ["noir", "war"],
                "user_category_affinity__affinities": [0.75, 0.25],
            }
        ),
        "context": Context(SATURDAY_AT_SEVEN, SATURDAY_AT_SEVEN - 90_000_000, 12),
    }
    found = matrix(["a", "b", "c"], LISTS, **(how | changes))  # type: ignore[arg-type]
    assert found.dtype == np.float32
    assert found.shape == (3, len(COLUMNS))
    return dict(zip(COLUMNS, found.T, strict=True))


def test_the_candidates_are_the_best_of_each_source_in_turn() -> None:
    assert pooled(LISTS) == ["a", "c", "b"]
    long = {source: [(f"{source}{n}", 1.0) for n in range(90)] for source in SOURCES}
    found = pooled(long)
    assert found[:4] == ["encoder0", "cooccurrence0", "alike0", "trending0"]
    assert len(found) == RANKED


def test_each_source_tells_the_place_and_the_share_of_its_best_score() -> None:
    found = told()
    for column, expected in {
        "encoder_place": [0, 1, NAN],
        "encoder_share": [1, 0.5, NAN],
        "encoder_score": [0.8, 0.4, NAN],
        "fused": [1 / 61 + 0.5 / 62, 1 / 62 + 0.1 / 61, 0.5 / 61 + 0.1 / 62],
        "cooccurrence_place": [1, NAN, 0],
        "cooccurrence_share": [0.2, NAN, 1],
        "alike_place": [NAN, 0, 1],
        "alike_share": [NAN, 1, 0.25],
        "trending_place": [NAN] * 3,
        "trending_share": [NAN] * 3,
        "near_newest": [0.6, 0, 0.8],
        "near_mean": [0.3, 0.5, 0.4],
        "near_best": [0.6, 1, 0.8],
        "affinity_sum": [1, 0, 0],
        "affinity_best": [0.75, 0, 0],
        "item_popularity__events_1h": [0, len(ITEM_FEATURES), 2 * len(ITEM_FEATURES)],
        "user_activity__events_24h": [3, 3, 3],
        "user_activity__events_1h": [NAN] * 3,
        "usual_hour": [7 / 24] * 3,
        "hour": [7] * 3,
        "weekday": [5] * 3,
        "seconds_since_last": [90] * 3,
        "events_known": [12] * 3,
    }.items():
        np.testing.assert_allclose(found[column], np.float32(expected), rtol=1e-6, err_msg=column)


def test_what_is_not_known_is_no_number() -> None:
    found = told(
        user=RankedUser.of({}),
        newest=np.empty((0, 3), dtype=np.float32),
        items=np.full((3, len(ITEM_FEATURES)), np.nan),
    )
    unknown = {
        *map(named, (*ITEM_FEATURES, *USER_NUMBERS)),
        "usual_hour",
        "affinity_sum",
        "affinity_best",
    }
    unknown |= {"near_newest", "near_mean", "near_best"}
    assert all(np.isnan(found[name]).all() for name in unknown)
