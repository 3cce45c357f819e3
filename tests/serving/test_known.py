"""What the API tells of users and releases."""

from datetime import timedelta
from typing import Any

from serving.reasons import Reason

ITEMS = tuple(f"i{n}" for n in range(6))


def test_a_user_is_told_with_history_vector_and_features(world: Any) -> None:
    world.catalogue(*({"item_id": i} for i in ITEMS))
    release = world.promote(ITEMS)
    hour = world.now.replace(minute=0)
    world.store.put_sequence("ann", [("i1", "play", hour - timedelta(minutes=9))])
    world.store.put_vector("ann", release, world.models[release].items[1], hour)
    world.store.users["ann"] |= {
        "user_activity__events_24h": 7,
        "user_activity__events_24h__ts": int(hour.timestamp()),
    }
    with world.client() as client:
        before = client.get("/v1/users/ann").json()
        client.post("/v1/events", json=world.event("e1", "i2"))
        after = client.get("/v1/users/ann").json()
    assert before["events"] == [
        {
            "item_id": "i1",
            "title": "I1",
            "event_type": "play",
            "event_ts": "2026-01-02T11:51:00Z",
            "value": 0.0,
        }
    ]
    assert before["vector"] == {"release": release, "ts": "2026-01-02T12:00:00Z", "used": True}
    assert before["features"] == {
        "user_activity": {
            "ts": "2026-01-02T12:00:00Z",
            "values": {"events_24h": 7, "last_event_ts": None},
        }
    }
    assert (before["live_events"], before["reason"]) == (0, None)
    assert [event["item_id"] for event in after["events"]] == ["i2", "i1"]
    assert (after["live_events"], after["vector"]["used"]) == (1, False)


def test_a_stranger_is_not_found(world: Any) -> None:
    with world.client() as client:
        response = client.get("/v1/users/nobody")
    assert (response.status_code, response.json()["code"]) == (404, "unknown_user")


def test_a_user_is_told_without_the_online_store(world: Any) -> None:
    world.store.error = OSError("gone")
    with world.client() as client:
        client.post("/v1/events", json=world.event("e1", "i2"))
        told = client.get("/v1/users/ann").json()
    assert (told["live_events"], told["features"], told["vector"]) == (1, {}, None)
    assert told["reason"] == Reason.STORE_FAILED.value


def test_an_event_that_two_workers_took_counts_once(world: Any) -> None:
    with world.client() as client:
        for journal in (world.journal(), world.journal()):
            assert journal.append([world.event("e0", "i0")])[0].status in ("accepted", "duplicate")
        other = world.journal()
        assert client.post("/v1/events", json=world.event("e1", "i1")).json()["accepted"] == 1
        assert other.append([world.event("e1", "i1")])[0].status == "accepted"
        told = client.get("/v1/users/ann").json()
    assert [event["item_id"] for event in told["events"]] == ["i1", "i0"]


def test_releases_are_told_newest_first(world: Any) -> None:
    first = world.promote(ITEMS, until=world.now.replace(minute=0) - timedelta(hours=1))
    second = world.promote(ITEMS, seed=2)
    world.releases.rollback()
    with world.client() as client:
        told = client.get("/v1/releases").json()["releases"]
        newest = client.get("/v1/releases?limit=1").json()["releases"]
    assert [(line["version"], line["active"]) for line in told] == [(second, False), (first, True)]
    assert told[0]["metrics"] == {"ndcg": 0.1}
    assert newest == told[:1]
