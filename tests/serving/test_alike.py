"""What is like the items touched last by what is said of it: a source where lists are ranked."""

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from nearline.alike import Alike
from nearline.ranking import COLUMNS
from nearline.releases import Ranking
from training.ranking.examples import Examples
from training.ranking.learning import learn

TITLES = {
    "i0": "Red hat",
    "i1": "Red shoe",
    "i2": "Hat",
    "i3": "Scarf",
    "i4": "Red hat too",
    "i5": "?",
}
ITEMS = tuple(TITLES)
PATH = "/v1/users/ann/recommendations"


def alike() -> Alike:
    """Three items are like the first, one like the fifth, and none like any other."""
    starts = np.array([0, 3, 3, 3, 3, 4, 4])
    items = np.array([4, 2, 1, 0], dtype=np.int32)
    return Alike.of(starts, items, np.array([0.5, 0.3, 0.2, 1], dtype=np.float32))


@pytest.fixture
def ranker() -> str:
    """A ranker that learned nothing: equal scores leave the candidates in their turns."""
    rng = np.random.default_rng(1)
    rows = np.full((40 * 20, len(COLUMNS)), np.nan, dtype=np.float32)
    found = Examples(rows, np.full(40, 20), rng.integers(0, 20, 40), np.arange(40))
    return str(learn(found, seed=1).model_to_string())


@pytest.fixture
def shop(world: Any, ranker: str) -> Any:
    """Six items; ann touched i0 and then i5, which nothing is like."""
    hour = timedelta(hours=1)
    world.store.put_sequence(
        "ann", [("i0", "play", world.now - 2 * hour), ("i5", "play", world.now - hour)]
    )
    world.put = lambda **changed: world.catalogue(
        *(
            {"item_id": item_id, "title": title} | changed.get(item_id, {})
            for item_id, title in TITLES.items()
        )
    )
    world.promote_with = lambda wins: world.promote(
        ITEMS, alike=alike(), ranker=ranker, ranking=Ranking(wins=wins, reason="planted")
    )
    world.put()
    return world


def scores(shop: Any, **params: Any) -> dict[str, float]:
    """The items that the source proposed to ann, with its scores."""
    with shop.client() as client:
        response = client.get(PATH, params={"limit": 6, "explain": True} | params)
    assert response.status_code == 200, response.text
    found = response.json()
    told = {item["item_id"]: item["why"]["scores"] for item in found["items"]}
    because = {item["item_id"]: item["why"]["because"] for item in found["items"]}
    alike = {item_id: each["alike"] for item_id, each in told.items() if "alike" in each}
    assert all({tie["item_id"] for tie in because[item_id]} >= {"i0"} for item_id in alike)
    return alike


def test_what_is_like_the_items_touched_last_is_proposed_where_lists_are_ranked(shop: Any) -> None:
    shop.promote_with(True)
    found = scores(shop)
    assert sorted(found, key=found.__getitem__, reverse=True) == ["i4", "i2", "i1"]
    assert found == pytest.approx({"i4": 0.5, "i2": 0.3, "i1": 0.2})


def test_without_a_ranker_it_proposes_nothing(shop: Any) -> None:
    shop.promote_with(False)
    assert scores(shop) == {}


def test_a_release_that_knows_no_content_proposes_nothing(shop: Any, ranker: str) -> None:
    shop.promote(ITEMS, ranker=ranker, ranking=Ranking(wins=True, reason="planted"))
    assert scores(shop) == {}


@pytest.mark.parametrize(
    ("changed", "asked", "left"),
    [
        ({"i4": {"available": False}}, {}, {"i1", "i2"}),
        ({"i4": {"attributes": {"hidden": True}}}, {}, {"i1", "i2"}),
        ({"i2": {"attributes": {"expires_ts": "2026-01-02T12:00:00Z"}}}, {}, {"i1", "i4"}),
        ({"i1": {"categories": ["shoes"]}}, {"category": "shoes", "fill": False}, {"i1"}),
        ({}, {"exclude": "i1"}, {"i2", "i4"}),
    ],
)
def test_the_rules_hold(
    shop: Any, changed: dict[str, Any], asked: dict[str, Any], left: set[str]
) -> None:
    shop.put(**changed)
    shop.promote_with(True)
    assert scores(shop, **asked).keys() == left


def test_items_that_the_release_does_not_know_are_passed_over(shop: Any) -> None:
    shop.promote_with(True)
    before = scores(shop)
    with shop.client() as client:
        item = {"item_id": "new", "title": "Hat", "created_ts": "2026-01-01T00:00:00Z"}
        assert client.put("/v1/items", json=item).status_code == 200
        events = [shop.event(f"e{n}", "new") for n in range(12)]
        assert client.post("/v1/events", json=events).status_code == 200
    assert scores(shop) == before, "i0 still is among the newest items that it knows"
