"""A list that is asked for again is the one that would be made, whatever happened in between."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from nearline.intake.files import read_hour
from nearline.settings import settings
from nearline.windows import hour_floor
from tests.serving.conftest import World

ITEMS = tuple(f"i{n}" for n in range(9))
ASKED = "/v1/users/ann/recommendations?limit=3"


@pytest.fixture
def keeping(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose lists are kept for ten seconds, and whose store counts what is read."""
    monkeypatch.setenv("NEARLINE_KEPT_SECONDS", "10")
    settings.cache_clear()
    world.catalogue(*({"item_id": item} for item in ITEMS))
    world.promote(ITEMS)
    return world


def list_of(client: TestClient, path: str = ASKED) -> dict[str, Any]:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    return dict(answer.json())


def without_own(listed: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in listed.items() if k not in ("request_id", "state_age_seconds")}


def test_it_is_given_again_with_its_own_id_and_age(keeping: World) -> None:
    with keeping.client() as client:
        client.post("/v1/events", json=keeping.event("e1", "i1"))
        first = list_of(client)
        keeping.store.error = RuntimeError("it must not be read")
        keeping.now += timedelta(seconds=4)
        again = list_of(client)
        figures = client.get("/metrics").text
    assert without_own(again) == without_own(first)
    assert again["request_id"] != first["request_id"]
    assert again["state_age_seconds"] == first["state_age_seconds"] + 4
    endpoint = "/v1/users/{user_id}/recommendations"
    assert f'nearline_answers_total{{endpoint="{endpoint}",source="live"}} 2.0' in figures
    assert f'nearline_requests_total{{endpoint="{endpoint}",status="200"}} 2.0' in figures
    logged = read_hour(settings().intake / "impressions", hour_floor(keeping.now))
    assert [row["request_id"] for row in logged] == [first["request_id"], again["request_id"]]
    assert logged[0]["item_ids"] == logged[1]["item_ids"]


def test_a_list_that_is_only_looked_at_is_neither_logged_nor_kept(keeping: World) -> None:
    with keeping.client() as client:
        shown = list_of(client)
        looks = [list_of(client, f"{ASKED}&log=false") for _ in range(2)]
        batch = {"user_ids": ["ann", "bob"], "log": False}
        assert len(client.post("/v1/recommendations", json=batch).json()["lists"]) == 2
    assert without_own(looks[1]) == without_own(shown)
    logged = read_hour(settings().intake / "impressions", hour_floor(keeping.now))
    assert [row["request_id"] for row in logged] == [shown["request_id"]]


def post_event(world: World, client: TestClient) -> None:
    client.post("/v1/events", json=world.event("e2", "i2"))


def accept_elsewhere(world: World, client: TestClient) -> None:
    world.journal().append([world.event("e2", "i2")])


def put_hidden(world: World, client: TestClient) -> None:
    first = list_of(client)["items"][0]["item_id"]
    hidden = {"item_id": first, "title": "T", "created_ts": "2026-01-01T00:00:00Z"}
    client.put("/v1/items", json=hidden | {"available": False})


def wait_long(world: World, client: TestClient) -> None:
    world.store.put_sequence("ann", [("i3", "play", world.now)])
    world.now += timedelta(seconds=10)


@pytest.mark.parametrize("happens", [post_event, accept_elsewhere, put_hidden, wait_long])
def test_it_is_made_anew_once_something_happened(
    keeping: World, happens: Callable[[World, TestClient], None]
) -> None:
    with keeping.client() as client:
        client.post("/v1/events", json=keeping.event("e1", "i1"))
        before = list_of(client)
        happens(keeping, client)
        after = list_of(client)
    assert without_own(after) != without_own(before)


def test_a_new_release_answers_at_once(keeping: World, eventually: Callable[..., None]) -> None:
    with keeping.client() as client:
        first = list_of(client)["release"]
        second = keeping.promote(ITEMS, seed=2, until=keeping.now)
        eventually(lambda: list_of(client)["release"] == second)
    assert first != second


def test_an_item_that_expires_is_shown_no_more(keeping: World) -> None:
    soon = (keeping.now + timedelta(seconds=5)).isoformat()
    keeping.catalogue(*({"item_id": i, "attributes": {"expires_ts": soon}} for i in ITEMS[:1]))
    with keeping.client() as client:
        assert [i["item_id"] for i in list_of(client)["items"]] == ["i0"]
        keeping.now += timedelta(seconds=5)
        assert list_of(client)["items"] == []


def test_another_question_is_another_list(keeping: World) -> None:
    with keeping.client() as client:
        assert len(list_of(client)["items"]) == 3
        assert len(list_of(client, ASKED.replace("3", "2"))["items"]) == 2
        assert client.get(ASKED.replace("3", "0")).status_code == 422
        assert client.head(ASKED).status_code == 405


def test_a_list_of_a_store_in_trouble_is_not_kept(keeping: World) -> None:
    keeping.store.error = RuntimeError("down")
    with keeping.client() as client:
        assert list_of(client)["reason"] == "the online store could not be read"
        keeping.store.error = None
        assert list_of(client)["reason"] == "nothing is known of this user"


def test_nothing_is_kept_where_the_setting_says_so(world: World) -> None:
    world.promote(ITEMS)
    with world.client() as client:
        before = list_of(client)
        world.store.put_sequence("ann", [("i3", "play", world.now)])
        assert without_own(list_of(client)) != without_own(before)


# How much is kept, and for how long


def test_a_list_whose_time_is_over_goes_by_itself(
    keeping: World, eventually: Callable[..., None]
) -> None:
    service = keeping.service()
    with keeping.client(service) as client:
        list_of(client)
        assert len(service.kept) == 1
        keeping.now += timedelta(seconds=10)
        eventually(lambda: len(service.kept) == 0)


def test_lists_take_so_many_bytes_and_the_oldest_go(
    keeping: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.kept.MOST_BYTES", 50_000)
    service = keeping.service()
    with keeping.client(service) as client:
        asked = [f"{ASKED}&exclude={n}{'x' * 200}" for n in range(30)]
        for path in asked:
            list_of(client, path)
        few = len(service.kept)
        assert 5 < few < 20
        keeping.store.error = RuntimeError("what is kept needs no store")
        assert list_of(client, asked[-few])["reason"] == "nothing is known of this user"
        assert list_of(client, asked[-few - 1])["reason"] == "the online store could not be read"


def test_a_list_made_anew_takes_the_place_of_the_old_one(keeping: World) -> None:
    service = keeping.service()
    with keeping.client(service) as client:
        list_of(client)
        client.post("/v1/events", json=keeping.event("e1", "i1"))
        newer = list_of(client)
        keeping.store.error = RuntimeError("it must not be read")
        assert without_own(list_of(client)) == without_own(newer)
    assert len(service.kept) == 1


def test_the_lists_of_who_is_forgotten_go_at_once(keeping: World) -> None:
    service = keeping.service()
    with keeping.client(service) as client:
        for user_id in ("ann", "bob"):
            list_of(client, ASKED.replace("ann", user_id))
        client.delete("/v1/users/ann")
        list_of(client, ASKED.replace("ann", "bob"))
        assert len(service.kept) == 1
        list_of(client)
        assert len(service.kept) == 2
