"""Never again: what a user took is not shown, however long ago and however much was done since."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from nearline.domains import load_domain
from nearline.settings import settings
from tests.serving.conftest import LENGTH, World

ITEMS = tuple(f"i{n}" for n in range(30))
ANN = "/v1/users/ann/recommendations"

DOMAIN = """
name: mine
event_types:
  peek: {positive: true, weight: 1, hides: never}
  view: {positive: true, weight: 1}
  buy: {positive: true, weight: 5, hides: always}
funnel: [view, buy]
"""


@pytest.fixture
def shop(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose sequences are short, in a domain where all three choices are made."""
    file = tmp_path / "mine.yaml"
    file.write_text(DOMAIN)
    monkeypatch.setenv("NEARLINE_DOMAIN", str(file))
    monkeypatch.setenv("NEARLINE_SEQUENCE_LENGTH", str(LENGTH))
    settings.cache_clear()
    world.catalogue(*({"item_id": item} for item in ITEMS))
    world.promote(ITEMS)
    return world


def shown(client: Any, path: str = ANN) -> set[str]:
    items = client.get(path, params={"limit": 30}).json()["items"]
    return {item["item_id"] for item in items}


def test_the_store_tells_what_was_taken_before_the_sequence(shop: World) -> None:
    hour = timedelta(hours=1)
    shop.store.put_sequence("ann", [("i1", "view", shop.now - hour)], taken=["i8", "i9", "gone"])
    settings().promotions.write_text(
        "- {item_id: i9, place: 1, from: 2026-01-01, until: 2027-01-01}"
    )
    with shop.client() as client:
        assert shown(client) == set(ITEMS) - {"i1", "i8", "i9"}
        assert shown(client, "/v1/trending") == set(ITEMS)


def test_what_was_taken_live_is_hidden_beyond_the_length_of_a_sequence(shop: World) -> None:
    def did(number: int, kind: str) -> dict[str, Any]:
        at = (shop.now - timedelta(minutes=20 - number)).isoformat()
        told = {"event_type": kind, "event_ts": at, "value": None}
        return shop.event(f"e{number}", f"i{number}", **told)

    with shop.client() as client:
        events = [did(1, "buy"), did(2, "view"), *(did(n, "view") for n in range(3, LENGTH + 3))]
        client.post("/v1/events", json=events)
        newest = {f"i{n}" for n in range(3, LENGTH + 3)}
        assert shown(client) == set(ITEMS) - newest - {"i1"}
        client.post("/v1/events", json=[did(19, "peek")])
        assert shown(client) == set(ITEMS) - newest - {"i1"} | {"i3"}
        client.delete("/v1/users/ann")
        assert shown(client) == set(ITEMS)


def test_sessions_follow_the_domain_too(shop: World) -> None:
    events = [{"item_id": f"i{n}", "event_type": k} for n, k in enumerate(["peek", "view", "buy"])]
    with shop.client() as client:
        body = {"events": events, "limit": 30}
        items = client.post("/v1/sessions/recommendations", json=body).json()["items"]
    assert {item["item_id"] for item in items} == set(ITEMS) - {"i1", "i2"}


@pytest.mark.parametrize(
    ("domain", "taking"),
    [
        ("commerce", ["purchase"]),
        ("entertainment", ["play", "rating"]),
        ("social", ["like", "comment", "share", "follow"]),
    ],
)
def test_what_the_built_in_domains_choose(domain: str, taking: list[str]) -> None:
    assert load_domain(domain).taking == taking
