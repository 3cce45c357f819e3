"""What is around a list: the item that the user looks at counts, and all of it is logged."""

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from nearline.intake.files import read_hour
from nearline.intake.impressions import IMPRESSION_SCHEMA
from nearline.settings import settings
from nearline.windows import hour_floor
from serving.client import RecommendationClient
from tests.serving.conftest import World

ITEMS = tuple(f"i{n}" for n in range(12))
ANN = "/v1/users/ann/recommendations"


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


@pytest.fixture
def shop(world: World) -> World:
    world.catalogue(*({"item_id": item} for item in ITEMS))
    world.store.put_sequence("ann", [("i1", "play", world.now - timedelta(hours=1))])
    world.promote(ITEMS)
    return world


def logged(world: World) -> list[dict[str, Any]]:
    return read_hour(settings().intake / "impressions", hour_floor(world.now))


def nearest(world: World, release: str, events: list[tuple[int, int]]) -> list[str]:
    """What a vector of (row, gap bucket) plays is nearest to, without these items."""
    model = world.models[release]
    rows, gaps = (np.array(column) for column in zip(*events, strict=True))
    vector = model.encode(rows + 1, np.ones_like(rows), gaps)
    order = np.argsort(-(model.items[1:] @ vector))
    return [f"i{row}" for row in order if row not in rows]


def test_the_item_that_is_looked_at_is_the_last_touch(world: World) -> None:
    world.catalogue(*({"item_id": item} for item in ITEMS))
    hour = timedelta(hours=1)
    world.store.put_sequence("ann", [("i1", "play", world.now - hour)])
    release = world.promote(ITEMS)
    vector = world.models[release].items[6]
    world.store.put_vector("ann", release, vector, world.now)
    with world.client() as client:
        stored = client.get(ANN, params={"limit": 5}).json()
        seeing = client.get(ANN, params={"limit": 5, "context": "item_id:i4"}).json()
        stranger = "/v1/users/nobody/recommendations"
        first = client.get(stranger, params={"limit": 5, "context": "item_id:i4"}).json()
        again = client.get(ANN, params={"limit": 5}).json()
    assert stored["source"] == "stored"
    assert seeing["source"] == first["source"] == "live"
    assert ids(seeing) == nearest(world, release, [(1, 13), (4, 1)])[:5]
    assert ids(first) == nearest(world, release, [(4, 1)])[:5]
    assert first["reason"] is None
    assert seeing["state_age_seconds"] == stored["state_age_seconds"] == 3600
    assert ids(again) == ids(stored)  # it is no event of the user


def test_what_the_same_users_touch_as_the_item_joins_in(shop: World) -> None:
    shop.store.neighbours["i4"] = (["i9"], [3.0])
    with shop.client() as client:
        why = client.get(
            ANN, params={"limit": 11, "context": "item_id:i4", "explain": True}
        ).json()["items"]
    [of] = [item["why"] for item in why if item["item_id"] == "i9"]
    assert of["scores"]["cooccurrence"] == 3.0
    assert {event["item_id"] for item in why for event in item["why"]["because"]} == {"i1"}


def test_sessions_and_batches_know_it_too(shop: World) -> None:
    around = ["item_id:i4", "page:detail"]
    with shop.client() as client:
        session = client.post(
            "/v1/sessions/recommendations", json={"events": [], "context": around}
        ).json()
        batch = client.post(
            "/v1/recommendations", json={"user_ids": ["nobody"], "context": around}
        ).json()
    assert session["source"] == "live"
    assert ids(session) == ids(batch["lists"][0])
    assert "i4" not in ids(session)
    assert [(row["item_id"], row["page"]) for row in logged(shop)] == [("i4", "detail")] * 2


def test_it_is_logged_with_the_list_and_told_by_the_client(shop: World) -> None:
    with shop.client() as http:
        client = RecommendationClient(base_url="http://test", transport=http._transport)
        around = {"item_id": "a:b", "category": "noir", "page": "detail", "device": "phone"}
        client.recommendations(user_id="ann", context=around)
        client.similar(item_id="i3", context=around)
    rows = logged(shop)
    assert [{name: row[name] for name in around} for row in rows] == [
        around,
        around | {"item_id": "i3"},
    ]
    assert set(around) <= set(IMPRESSION_SCHEMA.names)


def test_a_page_of_a_category_has_its_promotions(shop: World) -> None:
    settings().promotions.write_text(
        "- {item_id: i7, place: 1, from: 2026-01-01, until: 2027-01-01, categories: [noir]}"
    )
    with shop.client() as client:
        for told, promoted in (("category:noir", True), ("category:farce", False)):
            first = client.get(ANN, params={"context": told}).json()["items"][0]
            assert (first["source"] == "promotion") == promoted


@pytest.mark.parametrize(
    "wrong", ["item_id", "item_id:", "user_id:ann", "page:a\nb", f"item_id:{'x' * 257}"]
)
def test_what_is_no_context_is_refused(shop: World, wrong: str) -> None:
    with shop.client() as client:
        answer = client.get(ANN, params={"context": wrong})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith("query.context")
