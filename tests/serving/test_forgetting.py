"""A user who asked to be forgotten is a stranger in every next answer, of every worker."""

from datetime import timedelta
from typing import Any

import pytest

from nearline.intake import forgotten as wishes
from nearline.intake.blanking import journal_files
from nearline.settings import settings
from serving.service import Service

ITEMS = tuple(f"i{n}" for n in range(6))
SECOND = timedelta(seconds=1)


@pytest.fixture
def known(world: Any) -> Any:
    """A world that knows ann: a stored sequence, a vector, features."""
    world.catalogue(*({"item_id": i} for i in ITEMS))
    release = world.promote(ITEMS)
    hour = world.now.replace(minute=0)
    world.store.put_sequence("ann", [("i1", "play", hour - 9 * SECOND)])
    world.store.put_vector("ann", release, world.models[release].items[1], hour)
    features = {"user_activity__events_24h": 7, "user_activity__events_24h__ts": 1}
    world.store.users["ann"] |= features
    return world


def touched(client: Any) -> set[str]:
    """What ann is not shown, as she has had it."""
    answer = client.get("/v1/users/ann/recommendations?limit=100").json()
    return set(ITEMS) - {item["item_id"] for item in answer["items"]}


def test_every_worker_forgets_at_once_and_the_new_person_begins_anew(known: Any) -> None:
    with known.client() as one, known.client() as other:
        one.post("/v1/events", json=known.event("e1", "i2"))
        assert touched(one) == touched(other) == {"i1", "i2"}
        answer = one.delete("/v1/users/ann")
        assert answer.status_code == 202
        told = answer.json()
        assert told["forgotten_before"] == "2026-01-02T12:30:00Z"
        [wish] = wishes.pending()
        assert (wish.user_id, wish.request) == ("ann", told["request"])
        for client in (one, other):
            assert touched(client) == set()
            assert client.get("/v1/users/ann").status_code == 404
            assert client.get("/v1/search?q=i1&user_id=ann").json()["source"] == "search"

        late = other.post("/v1/events", json=[known.event("late", "i3")]).json()
        assert (late["refused"], late["accepted"]) == (1, 0)
        known.now += 10 * SECOND
        assert other.post("/v1/events", json=known.event("new", "i4")).json()["accepted"] == 1
        assert touched(one) == touched(other) == {"i4"}
        # While the removal is to come, the store tells of nobody.
        assert one.get("/v1/users/ann").json()["features"] == {}

        known.store.users.clear()
        assert wishes.finish(wish)
        known.store.put_sequence("ann", [("i5", "play", known.now)])
        assert touched(one) == touched(other) == {"i4", "i5"}


def test_no_list_is_given_again_from_memory(known: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEARLINE_KEPT_SECONDS", "10")
    settings.cache_clear()
    with known.client() as client:
        assert touched(client) == {"i1"}
        client.delete("/v1/users/ann")
        assert touched(client) == set()


def test_a_worker_that_starts_later_knows_it(known: Any) -> None:
    with known.client() as client:
        client.post("/v1/events", json=known.event("e1", "i2"))
        client.delete("/v1/users/ann")
    known.now += SECOND
    with known.client() as client:
        assert touched(client) == set()


def test_asking_twice_is_one_request(known: Any) -> None:
    with known.client() as client:
        first = client.delete("/v1/users/ann").json()
        known.now += SECOND
        again = client.delete("/v1/users/ann").json()
    assert again["request"] == first["request"]
    assert again["forgotten_before"] > first["forgotten_before"]


def test_what_was_shown_goes_with_the_user(known: Any) -> None:
    with known.client() as client:
        touched(client)
        known.now += SECOND
        client.delete("/v1/users/ann")
        [wish] = wishes.pending()
        [log] = [part for part in journal_files() if part.place == "intake/impressions"]
        assert log.found({"ann": wish.since}) == {"ann": 1}


def test_a_list_that_is_made_while_the_user_is_forgotten_is_not_logged(
    known: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_for = Service.list_for

    def slowly(*given: Any, **named: Any) -> Any:
        answer = list_for(*given, **named)
        known.now += SECOND
        wishes.ask("ann", clock=lambda: known.now)
        known.now += SECOND
        return answer

    with known.client() as client:
        with monkeypatch.context() as patch:
            patch.setattr(Service, "list_for", slowly)
            assert touched(client) == {"i1"}
        later = {"ann": known.now + SECOND}
        assert [part.found(later) for part in journal_files()] == [{}]
        touched(client)
        assert [part.found(later) for part in journal_files()] == [{"ann": 1}]


def test_a_wish_that_cannot_be_kept_is_not_promised(known: Any) -> None:
    with known.client() as client:
        wishes.forgotten_root().write_text("no folder")
        answer = client.delete("/v1/users/ann")
        assert (answer.status_code, answer.json()["code"]) == (507, "not_kept")
        assert touched(client) == {"i1"}
