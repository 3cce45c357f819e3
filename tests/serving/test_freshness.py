"""Freshness: newer items move up, by the time of the request, and no more than was set."""

from datetime import timedelta
from typing import Any

import pytest

from nearline.settings import settings
from serving.arrange import Candidate
from serving.freshness import freshened
from tests.serving.conftest import World

HOUR_US = 3_600_000_000
NOW_US = 1_000 * HOUR_US
ITEMS = tuple(f"i{n}" for n in range(9))


def ids(answer: Any) -> list[str]:
    return [item["item_id"] for item in answer.json()["items"]]


def test_the_boost_halves_with_age_and_moves_an_item_by_the_worth_of_places() -> None:
    created = {"unknown": 0, "old": HOUR_US, "day": NOW_US - 24 * HOUR_US, "new": NOW_US + 1}
    ranked = [Candidate(item, -1.0) for item in created]
    found = freshened(ranked, created.__getitem__, now_us=NOW_US, weight=0.1, half_life_hours=24)
    # 1.1 / 64 and 1.05 / 63 are more than 1 / 61
    assert [each.item_id for each in found] == ["new", "day", "unknown", "old"]
    boosts = {each.item_id: each.boost for each in found}
    assert boosts["new"] == pytest.approx(1.1)
    assert boosts["day"] == pytest.approx(1.05)
    assert boosts["unknown"] == 1
    assert [each.score for each in found] == [-1.0] * 4


def test_lists_follow_the_setting_and_the_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = timedelta(days=1)
    world.catalogue(
        *({"item_id": item, "created_ts": world.now - 400 * day} for item in ITEMS[:-1]),
        {"item_id": "i8", "created_ts": world.now},
    )
    world.promote(ITEMS)
    with world.client() as client:
        plain = ids(client.get("/v1/trending", params={"limit": 9}))
    monkeypatch.setenv("NEARLINE_FRESHNESS", "1")
    monkeypatch.setenv("NEARLINE_FRESHNESS_HOURS", "24")
    settings.cache_clear()
    with world.client() as client:
        fresh = ids(client.get("/v1/trending", params={"limit": 9}))
        why = client.get("/v1/users/stranger/recommendations?explain=true&limit=9").json()["items"]
        similar = ids(client.get("/v1/items/i0/similar", params={"limit": 8}))
        world.now += 60 * day
        later = ids(client.get("/v1/trending", params={"limit": 9}))
    assert plain == list(ITEMS)
    assert fresh == ["i8", *ITEMS[:-1]]
    assert [item["why"]["boost"] for item in why] == pytest.approx([2.0] + [1.0] * 8, abs=1e-6)
    assert later == plain
    monkeypatch.setenv("NEARLINE_FRESHNESS", "0")
    settings.cache_clear()
    with world.client() as client:
        assert ids(client.get("/v1/items/i0/similar", params={"limit": 8})) == similar


def test_an_arm_may_boost_alone(world: World) -> None:
    world.catalogue(
        *({"item_id": item, "created_ts": "2020-01-01T00:00:00Z"} for item in ITEMS[:-1]),
        {"item_id": "i8", "created_ts": world.now},
    )
    world.promote(ITEMS)
    settings().experiments.write_text(
        "e: {arms: {control: {share: 0.5}, new: {share: 0.5, settings: {freshness: 1}}}}"
    )
    with world.client() as client:
        first = {}
        for number in range(20):
            answer = client.get(f"/v1/users/u{number}/recommendations").json()
            first[answer["arm"]] = answer["items"][0]["item_id"]
    assert first == {"control": "i0", "new": "i8"}
