"""Exploration: what is logged is the chance that was drawn by, and rules hold for what is drawn."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from nearline.intake.files import read_hour
from nearline.intake.impressions import IMPRESSION_SCHEMA, IMPRESSIONS, close_impressions
from nearline.lake import Lake
from nearline.settings import settings
from nearline.windows import Window, hour_floor
from serving.arrange import Candidate
from serving.exploring import explored
from tests.serving.conftest import World

ITEMS = tuple(f"i{n}" for n in range(30))
ANN = "/v1/users/ann/recommendations"


def candidates(name: str, count: int) -> list[Candidate]:
    return [Candidate(f"{name}{n}", 1.0 / (n + 1), {"encoder": 1.0}) for n in range(count)]


def logged(world: World) -> list[dict[str, Any]]:
    return read_hour(settings().intake / "impressions", hour_floor(world.now))


@pytest.fixture
def exploring(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world that explores at three places in ten, and keeps lists if it may."""
    monkeypatch.setenv("NEARLINE_EXPLORE", "0.3")
    monkeypatch.setenv("NEARLINE_KEPT_SECONDS", "60")
    settings.cache_clear()
    world.catalogue(*({"item_id": item} for item in ITEMS))
    world.store.put_sequence("ann", [("i1", "play", world.now - timedelta(hours=1))])
    world.promote(ITEMS)
    return world


@pytest.mark.parametrize("beyond", [2, 12])
def test_shown_as_often_as_the_propensity_says(beyond: int) -> None:
    chosen, others, lists = candidates("own", 5), candidates("other", beyond), 20_000
    told: dict[tuple[int, str], float] = {}
    shown: Counter[tuple[int, str]] = Counter()
    for number in range(lists):
        drawn = explored(chosen, others, epsilon=0.4, list_id=f"list-{number}")
        assert len({each.item_id for each in drawn}) == len(drawn) == 5
        for place, each in enumerate(drawn):
            shown[place, each.item_id] += 1
            assert told.setdefault((place, each.item_id), each.propensity) == each.propensity
    assert len(told) == 5 + 4 * beyond
    for at, chance in told.items():
        wide = 5 * (chance * (1 - chance) / lists) ** 0.5
        assert shown[at] / lists == pytest.approx(chance, abs=wide)
    for place in range(5):
        assert sum(chance for at, chance in told.items() if at[0] == place) == pytest.approx(1)


def test_the_list_id_alone_draws_and_the_first_place_is_never_explored() -> None:
    chosen, others = candidates("own", 8), candidates("other", 8)
    once = explored(chosen, others, epsilon=0.5, list_id="a")
    assert once == explored(chosen, others, epsilon=0.5, list_id="a")
    assert once != explored(chosen, others, epsilon=0.5, list_id="b")
    assert once[0] == chosen[0]
    assert explored(chosen, others, epsilon=0.0, list_id="a") == chosen
    assert explored(chosen, [], epsilon=0.5, list_id="a") == chosen


def test_each_request_draws_anew_and_logs_what_it_drew(exploring: World) -> None:
    exploring.catalogue(
        *({"item_id": item} for item in ITEMS if item != "i2"),
        {"item_id": "i2", "available": False},
        {"item_id": "new", "created_ts": exploring.now},
    )
    beyond: Counter[str] = Counter()
    with exploring.client() as client:
        for number in range(60):
            answer = client.get(
                ANN,
                params={"limit": 6, "explain": True, "exclude": "i3"},
                headers={"X-Request-ID": f"r{number}"},
            ).json()
            row = logged(exploring)[-1]
            assert row["item_ids"] == [item["item_id"] for item in answer["items"]]
            assert row["propensities"] == [item["why"]["propensity"] for item in answer["items"]]
            assert row["propensities"][0] == 1
            assert set(row["propensities"][1:]) <= {0.7, 0.3 / 21}
            beyond.update(
                item["item_id"] for item in answer["items"] if item["why"]["propensity"] < 0.5
            )
    assert sum(beyond.values()) > 30
    assert {"i1", "i2", "i3"}.isdisjoint(beyond)


def test_a_new_item_is_shown_though_nothing_proposes_it(exploring: World) -> None:
    exploring.catalogue(
        *({"item_id": item} for item in ITEMS), {"item_id": "new", "categories": ["nobody's"]}
    )
    with exploring.client() as client:
        lists = [client.get(ANN, params={"limit": 10}).json()["items"] for _ in range(80)]
    assert "new" in {item["item_id"] for items in lists for item in items}


def test_an_arm_may_explore_alone(exploring: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEARLINE_EXPLORE", "0")
    settings.cache_clear()
    settings().experiments.write_text(
        "e: {arms: {control: {share: 0.5}, draws: {share: 0.5, settings: {explore: 0.4}}}}"
    )
    with exploring.client() as client:
        for number in range(20):
            client.get(f"/v1/users/u{number}/recommendations", params={"limit": 5})
    drawn = {(row["arm"], "propensities" in row) for row in logged(exploring)}
    assert drawn == {("control", False), ("draws", True)}


def test_similar_items_and_searches_are_not_explored(exploring: World) -> None:
    with exploring.client() as client:
        client.get("/v1/items/i4/similar")
        client.get("/v1/search", params={"q": "I5"})
        client.get("/v1/trending")
    assert ["propensities" in row for row in logged(exploring)] == [False, False, True]


def test_the_lake_holds_null_where_no_lot_was_drawn(exploring: World) -> None:
    with exploring.client() as client:
        client.get("/v1/items/i4/similar")
        client.get(ANN)
    hour = Window.of_hour(hour_floor(exploring.now))
    close_impressions(Lake.open(), hour, exploring.now + timedelta(hours=1))
    rows = Lake.open().read(IMPRESSIONS, hour, schema=IMPRESSION_SCHEMA).to_pylist()
    assert {row["kind"]: row["propensities"] is None for row in rows} == {
        "similar": True,
        "user": False,
    }


def test_candidates_are_not_changed() -> None:
    chosen, others = candidates("own", 3), candidates("other", 3)
    before = [*chosen, *others]
    explored(chosen, others, epsilon=0.5, list_id="a")
    assert [*chosen, *others] == before
