"""Promotions: at their places, for their time, under every rule, labelled and logged."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from nearline.intake.files import read_hour
from nearline.settings import settings
from nearline.windows import hour_floor
from tests.serving.conftest import World

ITEMS = tuple(f"i{n}" for n in range(12))
ANN = "/v1/users/ann/recommendations"
DAY = timedelta(days=1)


def promote(world: World, *lines: dict[str, Any]) -> None:
    """Write the file of promotions; they run from yesterday to tomorrow unless told otherwise."""
    told = [{"from": world.now - DAY, "until": world.now + DAY} | line for line in lines]
    text = "\n".join(f"- {{{', '.join(f'{k}: {_yaml(v)}' for k, v in t.items())}}}" for t in told)
    settings().promotions.write_text(text)


def _yaml(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def shown(client: TestClient, path: str = ANN, **params: Any) -> list[tuple[str, str]]:
    items = client.get(path, params={"limit": 6} | params).json()["items"]
    return [(item["item_id"], item["source"]) for item in items]


def promoted(client: TestClient, path: str = ANN, **params: Any) -> dict[int, str]:
    """Place → promoted item."""
    found = enumerate(shown(client, path, **params), start=1)
    return {place: item_id for place, (item_id, source) in found if source == "promotion"}


@pytest.fixture
def shop(world: World) -> World:
    """Twelve items, of which ann has played i1; i2 is hidden, i3 expired, i4 not available."""
    rows: dict[str, dict[str, Any]] = {item: {"item_id": item} for item in ITEMS}
    rows["i2"]["attributes"] = {"hidden": True}
    rows["i3"]["attributes"] = {"expires_ts": world.now.isoformat()}
    rows["i4"]["available"] = False
    rows["i5"]["categories"] = rows["i6"]["categories"] = ["noir"]
    world.catalogue(*rows.values(), {"item_id": "new", "categories": ["noir"]})
    world.store.put_sequence("ann", [("i1", "play", world.now - timedelta(hours=1))])
    world.promote(ITEMS)
    return world


def test_they_stand_at_their_places_and_the_rest_keeps_its_order(shop: World) -> None:
    with shop.client() as client:
        before = [item for item, _ in shown(client, limit=12)]
    promote(shop, {"item_id": "i11", "place": 1}, {"item_id": "new", "place": 4})
    with shop.client() as client:
        answer = client.get(ANN, params={"limit": 6, "explain": True}).json()
        again = shown(client)
    items = [item["item_id"] for item in answer["items"]]
    assert (items[0], items[3]) == ("i11", "new")
    rest = [item for item in before if item not in ("i11", "new")]
    assert [*items[1:3], *items[4:]] == rest[:4]
    assert [item["source"] for item in answer["items"]].count("promotion") == 2
    assert answer["items"][0]["why"]["scores"] == {}
    assert [item for item, _ in again] == items
    logged = read_hour(settings().intake / "impressions", hour_floor(shop.now))
    [row] = [row for row in logged if row["request_id"] == answer["request_id"]]
    assert row["item_ids"] == items
    assert [n for n, source in enumerate(row["sources"]) if source == "promotion"] == [0, 3]


@pytest.mark.parametrize("item_id", ["i1", "i2", "i3", "i4", "i9", "nowhere"])
def test_every_rule_holds_for_them(shop: World, item_id: str) -> None:
    promote(shop, {"item_id": item_id, "place": 1}, {"item_id": "i7", "place": 2})
    with shop.client() as client:
        assert promoted(client, exclude="i9") == {2: "i7"}
        assert promoted(client, exclude=["i9", "i7"]) == {}


def test_filters_hold_for_them(shop: World) -> None:
    promote(shop, {"item_id": "i7", "place": 1}, {"item_id": "i6", "place": 2})
    with shop.client() as client:
        assert promoted(client, category="noir") == {2: "i6"}


def test_the_last_items_of_a_list_that_is_filled_up_are_what_fills_it(shop: World) -> None:
    promote(shop, {"item_id": "i6", "place": 4}, {"item_id": "i5", "place": 5})
    with shop.client() as client:
        answer = client.get(ANN, params={"limit": 6, "category": "noir"}).json()
    items = [item["item_id"] for item in answer["items"]]
    assert answer["filled"]["items"] == 3
    assert items[:3] == ["new", "i6", "i5"]
    assert [item["matches"] for item in answer["items"]] == [True] * 3 + [False] * 3


def test_surfaces_and_categories_choose_the_lists(shop: World) -> None:
    promote(
        shop,
        {"item_id": "i7", "place": 1, "surfaces": "[home]"},
        {"item_id": "i6", "place": 2, "categories": "[noir]"},
    )
    with shop.client() as client:
        assert promoted(client) == {}
        assert promoted(client, surface="home") == {1: "i7"}
        assert promoted(client, category="noir") == {2: "i6"}
        body = {"events": [{"item_id": "i8"}], "surface": "home"}
        session = client.post("/v1/sessions/recommendations", json=body).json()
        assert session["items"][0]["item_id"] == "i7"
        batch = client.post(
            "/v1/recommendations", json={"user_ids": ["ann", "bob"], "surface": "home"}
        ).json()
        assert [each["items"][0]["item_id"] for each in batch["lists"]] == ["i7", "i7"]
        assert promoted(client, "/v1/trending", surface="home") == {}


def test_they_take_no_more_places_than_set_and_never_more_than_half(
    shop: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(shop, *({"item_id": f"i{n}", "place": 1} for n in range(6, 11)))
    with shop.client() as client:
        assert promoted(client) == {1: "i6", 2: "i7"}
        assert promoted(client, limit=3) == {1: "i6"}
        assert promoted(client, limit=1) == {}
        assert len(shown(client, limit=3)) == 3
    monkeypatch.setenv("NEARLINE_PROMOTED_PLACES", "0")
    settings.cache_clear()
    with shop.client() as client:
        assert promoted(client) == {}


def test_their_time_is_the_request_s_also_for_a_kept_list(
    shop: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_KEPT_SECONDS", "3600")
    settings.cache_clear()
    second = timedelta(seconds=1)
    promote(
        shop,
        {"item_id": "i7", "place": 1, "from": shop.now + second, "until": shop.now + 2 * second},
    )
    with shop.client() as client:
        seen = []
        for _ in range(3):
            seen += [promoted(client), promoted(client)]
            shop.now += second
    assert seen == [{}, {}, {1: "i7"}, {1: "i7"}, {}, {}]


def test_an_arm_may_do_without(shop: World) -> None:
    promote(shop, {"item_id": "i7", "place": 1})
    settings().experiments.write_text(
        "e: {arms: {control: {share: 0.5}, bare: {share: 0.5, settings: {promotions: off}}}}"
    )
    with shop.client() as client:
        found = {}
        for number in range(20):
            answer = client.get(f"/v1/users/u{number}/recommendations").json()
            found[answer["arm"]] = answer["items"][0]["source"] == "promotion"
    assert found == {"control": True, "bare": False}


def test_running_servers_follow_the_file_and_a_wrong_one_changes_nothing(
    shop: World, eventually: Callable[..., None]
) -> None:
    with shop.client() as client:
        assert promoted(client) == {}
        promote(shop, {"item_id": "i7", "place": 1})
        eventually(lambda: promoted(client) == {1: "i7"})
        settings().promotions.write_text("- {item_id: i8, place: 0}")
        wrong = 'nearline_refresh_failures_total{what="promotions"} 1.0'
        eventually(lambda: wrong in client.get("/metrics").text)
        assert promoted(client) == {1: "i7"}
        settings().promotions.unlink()
        eventually(lambda: promoted(client) == {})
