"""The real app over HTTP, with the real journal; the online store is a fake that obeys."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from nearline.sequence import History, microseconds
from nearline.settings import settings
from serving.reasons import Reason

ITEMS = tuple(f"i{n}" for n in range(40))
HOUR_END = datetime.fromisoformat("2026-01-02T12:00:00+00:00")


@pytest.fixture
def release(world: Any) -> str:
    world.catalogue(*({"item_id": i} for i in ITEMS))
    return str(world.promote(ITEMS))


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def get(client: Any, path: str, **params: Any) -> dict[str, Any]:
    response = client.get(path, params=params)
    assert response.status_code == 200, response.text
    return dict(response.json())


def figure(client: Any, line: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return next((float(found.split()[-1]) for found in lines if found.startswith(line)), 0.0)


def expected_items(world: Any, release: str, history: History, limit: int) -> list[str]:
    """Computed from the model and the matrix, without any of serving."""
    loaded = world.releases.load(release)
    vocabulary = json.loads((loaded.path / "item_ids.json").read_text())
    model, now_us = world.models[release], microseconds(world.now)
    items = [vocabulary.index(i) + 1 for i in history.item_ids][-5:]
    types = [["play", "rating", "comment"].index(t) + 1 for t in history.event_types][-5:]
    times = [*history.event_ts, now_us][-len(items) - 1 :]
    seconds = [max((b - a) // 1_000_000, 0) for a, b in pairwise(times)]
    gaps = [min(int(s).bit_length(), 31) + 1 for s in seconds]
    scores = model.items[1:] @ model.encode(np.array(items), np.array(types), np.array(gaps))
    order = [vocabulary[row] for row in np.argsort(-scores)]
    return [item for item in order if item not in history.item_ids][:limit]


# Users


def test_a_known_user_is_answered_from_the_sequence(world: Any, release: str) -> None:
    events = [(f"i{n}", "play", HOUR_END - timedelta(minutes=9 - n)) for n in range(7)]
    world.store.put_sequence("ann", events)
    with world.client() as client:
        answer = get(client, "/v1/users/ann/recommendations", limit=8)
    rows = [(item, kind, microseconds(ts), 0.0) for item, kind, ts in events]
    history = History(*zip(*rows, strict=True))
    assert ids(answer) == expected_items(world, release, history, 8)
    assert (answer["source"], answer["reason"], answer["release"]) == ("live", None, release)
    assert answer["items"][0]["title"] == answer["items"][0]["item_id"].upper()
    assert answer["state_age_seconds"] == 33 * 60


def test_feedback_changes_the_next_answer(world: Any, release: str) -> None:
    world.store.put_sequence("ann", [("i1", "play", HOUR_END - timedelta(hours=3))])
    with world.client() as client:
        before = get(client, "/v1/users/ann/recommendations", limit=5)
        liked = ids(before)[0]
        posted = client.post("/v1/events", json=world.event("e1", liked))
        assert posted.json()["accepted"] == 1
        after = get(client, "/v1/users/ann/recommendations", limit=5)
    assert liked not in ids(after)
    history = History(
        ("i1", liked),
        ("play", "play"),
        (
            microseconds(HOUR_END - timedelta(hours=3)),
            microseconds(world.now - timedelta(seconds=5)),
        ),
        (0.0, 0.0),
    )
    assert ids(after) == expected_items(world, release, history, 5)
    assert (after["source"], after["state_age_seconds"]) == ("live", 5.0)


def test_an_event_counts_once_when_its_hour_is_materialized(world: Any, release: str) -> None:
    with world.client() as client:
        client.post("/v1/events", json=world.event("e1", "i1"))
        before = get(client, "/v1/users/ann/recommendations")
        world.store.put_sequence("ann", [("i1", "play", world.now - timedelta(seconds=5))])
        after = get(client, "/v1/users/ann/recommendations")
    assert before["items"] == after["items"]


def test_an_unknown_user_gets_what_is_trending(world: Any, release: str) -> None:
    world.store.trending = (["gone", "i7", "i3"], [3.0, 2.0, 1.0], HOUR_END)
    with world.client() as client:
        answer = get(client, "/v1/users/nobody/recommendations", limit=4)
        assert figure(client, 'nearline_fallbacks_total{reason="unknown_user"}') == 1
        short = get(client, "/v1/users/nobody/recommendations", limit=4, fill=False)
    assert ids(answer) == ["i7", "i3", "i0", "i1"]
    assert [item["source"] for item in answer["items"]] == ["trending"] * 2 + ["popular"] * 2
    few = Reason.FEW_LEFT
    assert answer["filled"] == {"items": 2, "reason": few.value, "reason_code": few.code}
    assert (ids(short), short["filled"]["items"]) == (["i7", "i3"], 0)
    assert (answer["source"], answer["reason"]) == ("trending", Reason.UNKNOWN_USER.value)
    assert answer["state_age_seconds"] == 30 * 60


def test_without_a_trending_list_the_release_tells_what_is_popular(
    world: Any, release: str
) -> None:
    with world.client() as client:
        answer = get(client, "/v1/users/nobody/recommendations", limit=3)
    assert (answer["source"], ids(answer)) == ("popular", ["i0", "i1", "i2"])


def test_a_user_of_items_that_the_release_lacks_is_not_encoded(world: Any, release: str) -> None:
    world.store.trending = (["i7"], [2.0], HOUR_END)
    world.store.put_sequence("ann", [("new", "play", HOUR_END)])
    with world.client() as client:
        answer = get(client, "/v1/users/ann/recommendations")
    assert (answer["source"], answer["reason"]) == ("trending", Reason.NO_KNOWN_EVENT.value)


def test_unavailable_items_are_not_shown(world: Any) -> None:
    world.catalogue(*({"item_id": i, "available": i in ("i3", "i4")} for i in ITEMS))
    world.promote(ITEMS)
    world.store.put_sequence("ann", [("i1", "play", HOUR_END)])
    world.store.trending = (["i7", "i3"], [2.0, 1.0], HOUR_END)
    with world.client() as client:
        assert set(ids(get(client, "/v1/users/ann/recommendations", limit=40))) == {"i3", "i4"}
        assert set(ids(get(client, "/v1/items/i3/similar", limit=40))) == {"i4"}
        assert ids(get(client, "/v1/trending", fill=False)) == ["i3"]


# Pushed vectors


def test_a_pushed_vector_of_the_same_release_is_used(world: Any, release: str) -> None:
    world.store.put_sequence("ann", [("i1", "play", HOUR_END - timedelta(seconds=1))])
    vector = world.models[release].items[1 + 20]
    world.store.put_vector("ann", release, vector, HOUR_END)
    with world.client() as client:
        answer = get(client, "/v1/users/ann/recommendations", limit=1)
        assert (answer["source"], ids(answer)) == ("stored", ["i20"])
        assert figure(client, 'nearline_user_vectors_total{outcome="stored"}') == 1


def test_a_vector_of_another_release_is_never_used(world: Any, release: str) -> None:
    world.store.put_sequence("ann", [("i1", "play", HOUR_END - timedelta(seconds=1))])
    other = world.publish(ITEMS, seed=9)
    world.store.put_vector("ann", other, world.models[other].items[1 + 20], HOUR_END)
    with world.client() as client:
        answer = get(client, "/v1/users/ann/recommendations")
        outcome = 'nearline_user_vectors_total{outcome="stored_other_release"}'
        assert figure(client, outcome) == 1
        assert figure(client, 'nearline_user_vectors_total{outcome="encoded"}') == 1
    history = History(("i1",), ("play",), (microseconds(HOUR_END - timedelta(seconds=1)),), (0,))
    assert answer["source"] == "live"
    assert ids(answer) == expected_items(world, release, history, 10)


@pytest.mark.parametrize("seconds_ago", [5, 3600])
def test_a_vector_older_than_an_event_is_not_used(
    world: Any, release: str, seconds_ago: int
) -> None:
    """Also when the event happened before the vector was made, but came in after."""
    world.store.put_sequence("ann", [("i1", "play", HOUR_END - timedelta(hours=4))])
    world.store.put_vector("ann", release, world.models[release].items[1 + 20], HOUR_END)
    happened = (world.now - timedelta(seconds=seconds_ago)).isoformat()
    with world.client() as client:
        assert get(client, "/v1/users/ann/recommendations")["source"] == "stored"
        client.post("/v1/events", json=world.event("e1", "i2", event_ts=happened))
        assert get(client, "/v1/users/ann/recommendations")["source"] == "live"
        assert figure(client, 'nearline_user_vectors_total{outcome="stored_outdated"}') == 1


# The online store in trouble


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [({"delay_s": 0.3}, Reason.STORE_LATE), ({"error": OSError("gone")}, Reason.STORE_FAILED)],
)
def test_without_the_online_store_the_answer_says_so(
    world: Any,
    release: str,
    monkeypatch: pytest.MonkeyPatch,
    trouble: dict[str, Any],
    reason: Reason,
) -> None:
    if "delay_s" in trouble:  # else no busy machine shall miss the deadline
        monkeypatch.setenv("NEARLINE_FEATURE_DEADLINE_MS", "50")
        settings.cache_clear()
    with world.client() as client:
        client.post("/v1/events", json=world.event("e1", "i1"))
        vars(world.store).update(trouble)
        known = get(client, "/v1/users/ann/recommendations")
        stranger = get(client, "/v1/users/nobody/recommendations")
        label = reason.name.lower()
        assert figure(client, f'nearline_fallbacks_total{{reason="{label}"}}') == 2
    assert (known["source"], known["reason"]) == ("live", reason.value)
    assert (stranger["source"], stranger["reason"]) == ("popular", reason.value)
    assert "i1" not in ids(known)


def test_the_last_trending_list_bridges_a_store_in_trouble(world: Any, release: str) -> None:
    world.store.trending = (["i7"], [2.0], HOUR_END)
    with world.client() as client:
        assert get(client, "/v1/trending")["source"] == "trending"
        world.store.error = OSError("gone")
        world.now += timedelta(minutes=1)
        assert ids(get(client, "/v1/trending", fill=False)) == ["i7"]
        world.now += timedelta(days=8)
        answer = get(client, "/v1/trending")
    assert (answer["source"], answer["reason"]) == ("popular", Reason.STORE_FAILED.value)


# Sessions and items


def test_a_session_is_answered_from_its_events_alone(world: Any, release: str) -> None:
    body = {
        "events": [
            {"item_id": "i2", "event_type": "rating", "event_ts": "2026-01-02T12:29:00"},
            {"item_id": "nowhere"},
            {"item_id": "i5", "event_type": "sneeze"},
            {"item_id": "i4"},
        ],
        "limit": 6,
    }
    with world.client() as client:
        answer = client.post("/v1/sessions/recommendations", json=body).json()
    times = (microseconds(world.now - timedelta(minutes=1)), microseconds(world.now))
    history = History(("i2", "i4"), ("rating", "play"), times, (0, 0))
    expected = [i for i in expected_items(world, release, history, 8) if i != "i5"][:6]
    assert ids(answer) == expected
    assert answer["source"] == "live"
    assert answer["ignored"] == [
        {"item_id": "nowhere", "reason": "unknown item"},
        {"item_id": "i5", "reason": "unknown event type 'sneeze'"},
    ]


@pytest.mark.parametrize("events", [[], [{"item_id": "nowhere"}]])
def test_a_session_that_tells_nothing_gets_what_is_trending(
    world: Any, release: str, events: list[dict[str, str]]
) -> None:
    world.store.trending = (["i7"], [2.0], HOUR_END)
    with world.client() as client:
        body = {"events": events, "fill": False}
        answer = client.post("/v1/sessions/recommendations", json=body).json()
    assert (answer["source"], ids(answer)) == ("trending", ["i7"])
    assert answer["reason"] == Reason.NO_KNOWN_EVENT.value


def test_similar_items_are_the_nearest_vectors(world: Any, release: str) -> None:
    matrix = world.models[release].items[1:]
    expected = [f"i{row}" for row in np.argsort(-(matrix @ matrix[3])) if row != 3][:4]
    with world.client() as client:
        answer = get(client, "/v1/items/i3/similar", limit=4)
    assert (answer["source"], ids(answer)) == ("neighbours", expected)


def test_a_new_item_is_like_those_of_its_categories(world: Any) -> None:
    world.promote(["i0", "i1", "i2"])
    world.catalogue(
        {"item_id": "new/1 of 2", "categories": ["noir", "crime"]},
        {"item_id": "i0", "categories": ["crime"]},
        {"item_id": "i1", "categories": ["noir", "crime"]},
        {"item_id": "i2", "categories": ["farce"]},
        {"item_id": "hidden", "categories": ["noir", "crime"], "available": False},
        {"item_id": "odd", "categories": ["unique"]},
    )
    with world.client() as client:
        answer = get(client, "/v1/items/new%2F1%20of%202/similar")
        lonely = get(client, "/v1/items/odd/similar")
    assert (answer["source"], answer["reason"]) == ("content", Reason.NEW_ITEM.value)
    assert [(i["item_id"], i["score"]) for i in answer["items"]] == [("i1", 1.0), ("i0", 0.5)]
    assert lonely["reason"] == Reason.NO_CATEGORIES.value


def test_an_unknown_item_is_not_found(world: Any, release: str) -> None:
    with world.client() as client:
        response = client.get("/v1/items/nowhere/similar")
    assert response.status_code == 404
    assert response.json()["code"] == "unknown_item"
    assert "'nowhere'" in response.json()["detail"]


# Events


def test_a_bad_event_in_a_batch_does_not_keep_the_others_out(world: Any, release: str) -> None:
    batch = [
        world.event("e1", "i1"),
        world.event("e2", "i2", event_type="sneeze"),
        "no event",
        world.event("e1", "i1"),
    ]
    with world.client() as client:
        response = client.post("/v1/events", json=batch)
        assert figure(client, 'nearline_events_total{status="refused"}') == 2
        assert get(client, "/v1/users/ann/recommendations")["source"] == "live"
    body = response.json()
    assert response.status_code == 207
    assert (body["accepted"], body["duplicate"], body["refused"]) == (1, 1, 2)
    assert [r["status"] for r in body["events"]] == ["accepted", "refused", "refused", "duplicate"]
    assert "sneeze" in body["events"][1]["reason"]


def test_a_single_bad_event_is_refused_with_the_reason(world: Any, release: str) -> None:
    with world.client() as client:
        response = client.post("/v1/events", json=world.event("e1", "i1", value=7.0))
    assert response.status_code == 422
    assert response.json()["code"] == "event_refused"
    assert "7.0" in response.json()["detail"]


def test_posting_again_changes_nothing(world: Any, release: str) -> None:
    with world.client() as client:
        first = client.post("/v1/events", json=world.event("e1", "i1"))
        before = get(client, "/v1/users/ann/recommendations")
        again = client.post("/v1/events", json=world.event("e1", "i1"))
        after = get(client, "/v1/users/ann/recommendations")
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json()["events"][0]["status"] == "duplicate"
    assert before["items"] == after["items"]
    assert len(world.accepted()) == 1


def test_what_was_judged_at_the_door_is_judged_no_more(
    world: Any, release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world.client() as client:
        client.post("/v1/events", json=world.event("e1", "i1"))
    monkeypatch.setattr("pydantic.BaseModel.model_validate", lambda *_: pytest.fail("judged"))
    service = world.service()
    service.start(lambda: world.now)
    service.close()
    assert [event.item_id for event in service.live.of("ann").events] == ["i1"]


@pytest.mark.parametrize("method_path", ["POST /v1/events", "PUT /v1/items"])
def test_receipts_are_not_read_again_on_the_event_loop(
    world: Any, release: str, method_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = {"item_id": "new", "title": "New", "created_ts": "2026-01-01T00:00:00Z"}
    row = item if method_path.startswith("PUT") else world.event("e1", "i1")
    method, path = method_path.split()
    with world.client() as client:
        monkeypatch.setattr("fastapi.routing.serialize_response", lambda **_: pytest.fail("read"))
        answer = client.request(method, path, json=[row, {}])
    assert (answer.status_code, answer.json()["accepted"]) == (207, 1)


def test_a_restart_keeps_the_live_events(world: Any, release: str) -> None:
    with world.client() as client:
        client.post("/v1/events", json=[world.event("e1", "i1"), world.event("e2", "i2")])
        before = get(client, "/v1/users/ann/recommendations")
    with world.client() as client:
        after = get(client, "/v1/users/ann/recommendations")
    assert (after["source"], after["items"]) == ("live", before["items"])


def test_events_are_taken_before_there_is_a_release(world: Any) -> None:
    with world.client() as client:
        assert client.post("/v1/events", json=world.event("e1", "i1")).json()["accepted"] == 1


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_beyond_the_limit_is_refused(
    world: Any, release: str, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    monkeypatch.setenv("NEARLINE_MAX_BODY_BYTES", "1024")
    settings.cache_clear()
    body = json.dumps([world.event(f"e{n}", "i1") for n in range(50)]).encode()
    content = (body[at : at + 100] for at in range(0, len(body), 100)) if chunked else body
    headers = {"content-type": "application/json"}
    with world.client() as client:
        response = client.post("/v1/events", content=content, headers=headers)
    assert response.status_code == 413
    assert response.json()["code"] == "too_large"
    assert world.accepted() == []


@pytest.mark.parametrize(
    ("content", "media_type", "status", "code"),
    [
        (b"{", "application/json", 400, "bad_request"),
        (b"\xff", "application/json", 400, "bad_request"),
        (b"[]", "application/json", 422, "invalid"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"{}", "application/json", 422, "event_refused"),
        (b"[" * 100_000, "application/json", 400, "bad_request"),
    ],
)
def test_a_body_that_is_no_event_is_refused(
    world: Any, content: bytes, media_type: str, status: int, code: str
) -> None:
    with world.client() as client:
        response = client.post("/v1/events", content=content, headers={"content-type": media_type})
    assert (response.status_code, response.json()["code"]) == (status, code)


# Operation


def test_not_ready_becomes_ready_by_itself(world: Any, eventually: Any) -> None:
    with world.client() as client:
        assert client.get("/healthz").json()["status"] == "ok"
        for path in ("/readyz", "/v1/release", "/v1/trending", "/v1/users/ann/recommendations"):
            response = client.get(path)
            assert response.status_code == 503
            assert response.json()["code"] == "not_ready"
            assert "nearline train" in response.json()["detail"]
        release = world.promote(ITEMS)
        eventually(lambda: client.get("/readyz").status_code == 200)
        told = get(client, "/v1/release")
    assert (told["version"], told["items"], told["recommendable"]) == (release, 40, 40)
    assert told["metrics"] == {"ndcg": 0.1}


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("k=4", "'4': is not known here; /openapi.json tells what is"),
        ("context=place:1", "'place:1': must be item_id:…, category:…, page:… or device:…"),
        ("exclude=", "'': must be a text of 1 to 256 characters, none of control"),
        ("attribute=red", "'red': must be NAME:VALUE, as in color:red"),
        ("price_min=2&price_max=1", "'1': must be no less than price_min, which is 2"),
        ("q=+", "' ': must have words, in up to 500 characters"),
    ],
)
def test_a_wrong_argument_is_told_in_plain_words(
    world: Any, release: str, query: str, told: str
) -> None:
    with world.client() as client:
        words = "" if query.startswith("q=") else "q=words&"
        [wrong] = client.get(f"/v1/search?{words}{query}").json()["errors"]
        version = client.post("/v1/admin/releases/promote", json={"version": "a/b"}).json()
    assert wrong["detail"].startswith(told)
    assert "is no version of a release" in version["detail"]


@pytest.mark.parametrize(
    ("path", "status", "code", "told"),
    [
        ("/v1/trending?limit=0", 422, "invalid", "limit='0'"),
        ("/v1/trending?limit=201", 422, "invalid", "limit='201'"),
        ("/v1/trending?limit=ten", 422, "invalid", "limit='ten'"),
        ("/v1/nothing", 404, "not_found", "/v1/nothing"),
        ("/v1/events", 405, "method_not_allowed", "/v1/events"),
        (f"/v1/users/{'x' * 257}/recommendations", 422, "invalid", "user_id"),
    ],
)
def test_every_error_has_the_same_shape(
    world: Any, release: str, path: str, status: int, code: str, told: str
) -> None:
    with world.client() as client:
        response = client.get(path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == f"urn:nearline:problem:{code}"
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["instance"] == path.split("?")[0]
    assert problem["request_id"] == response.headers["x-request-id"]
    assert told in problem["detail"]
    wrong_fields = [wrong["pointer"] for wrong in problem["errors"]]
    assert all(field in problem["detail"] for field in wrong_fields)
    assert bool(wrong_fields) == (status == 422)


def test_a_session_with_wrong_fields_is_refused(world: Any, release: str) -> None:
    with world.client() as client:
        for body in ({"events": [{"item": "i1"}]}, {"events": [], "limit": 500}, []):
            response = client.post("/v1/sessions/recommendations", json=body)
            assert (response.status_code, response.json()["code"]) == (422, "invalid")


def test_a_bug_is_answered_in_the_same_shape(
    world: Any, release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = world.service()
    monkeypatch.setattr(service.recommender, "trending", lambda *_, **__: 1 / 0)
    with world.client(service) as client:
        response = client.get("/v1/trending", headers={"x-request-id": "r-1"})
    assert response.status_code == 500
    assert response.json()["code"] == "internal"
    assert "r-1" in response.json()["detail"]
    assert response.headers["x-request-id"] == "r-1"


def test_a_request_has_an_id(world: Any, release: str) -> None:
    with world.client() as client:
        given = client.get("/v1/trending", headers={"x-request-id": "page-7"})
        odd = client.get("/v1/trending", headers={"x-request-id": "no spaces, please"})
    assert given.headers["x-request-id"] == "page-7"
    assert odd.headers["x-request-id"] == odd.json()["request_id"]
    assert len(odd.headers["x-request-id"]) == 32


def test_lists_asked_for_under_one_id_have_ids_of_their_own(world: Any, release: str) -> None:
    headers, path = {"x-request-id": "page-7"}, "/v1/users/ann/recommendations"
    with world.client() as client:
        lists = [client.get(path, headers=headers).json() for _ in range(3)]
        both = {"user_ids": ["ann", "bob"]}
        batch = client.post("/v1/recommendations", json=both, headers=headers).json()
    ids = {each["request_id"] for each in (*lists, *batch["lists"])}
    assert len(ids) == 5
    assert all(each.startswith("page-7.") for each in ids)
    assert batch["request_id"] == "page-7"


BODIES = (
    ("POST", "/v1/events"),
    ("PUT", "/v1/items"),
    ("POST", "/v1/sessions/recommendations"),
    ("POST", "/v1/recommendations"),
    ("POST", "/v1/admin/releases/promote"),
    ("POST", "/v1/admin/releases/rollback"),
)


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_every_body_is_judged_alike(world: Any, release: str, method: str, path: str) -> None:
    def send(content: bytes, media_type: str | None) -> tuple[int, str]:
        headers = {"content-type": media_type} if media_type else {}
        response = client.request(method, path, content=content, headers=headers)
        return response.status_code, response.json()["code"]

    with world.client() as client:
        assert send(b"{", "application/json") == (400, "bad_request")
        assert send(b"{}", "text/plain") == (415, "unsupported_media_type")
        assert send(b"{", None) == (415, "unsupported_media_type")


def test_what_is_missing_is_named_and_nothing_else(world: Any, release: str) -> None:
    with world.client() as client:
        problem = client.get("/v1/search?limit=3").json()
    assert problem["errors"] == [{"pointer": "query.q", "detail": "nothing: Field required"}]


# Addresses


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("DELETE", "/v1/users/ann/recommendations", 405),
        ("DELETE", "/v1/users/ann/", 404),
        ("GET", "/v1/users/ann/recommendations/", 404),
        ("GET", "/v1/users/a/b/recommendations", 404),
        ("GET", "/v1/users/%2E%2E", 422),
        ("DELETE", "/v1/users/%2e", 422),
        ("GET", "/v1/items/%2E/similar", 422),
    ],
)
def test_an_address_that_was_mistyped_names_no_one(
    world: Any, release: str, method: str, path: str, status: int
) -> None:
    with world.client() as client:
        response = client.request(method, f"http://testserver{path}")
    assert (response.status_code, response.json()["instance"]) == (status, path)


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/v1/events", "POST"), ("/v1/users/ann", "DELETE, GET"), ("/healthz", "GET, HEAD")],
)
def test_a_method_that_is_refused_is_told_those_that_are_not(
    world: Any, release: str, path: str, methods: str
) -> None:
    with world.client() as client:
        response = client.patch(path)
    assert (response.status_code, response.headers["allow"]) == (405, methods)


def test_a_balancer_may_ask_for_the_head_of_health(
    world: Any, release: str, keyed: Callable[..., str]
) -> None:
    keyed("read")
    with world.client() as client:
        answers = [client.head(path) for path in ("/healthz", "/readyz")]
    assert [(answer.status_code, answer.content) for answer in answers] == [(200, b"")] * 2


@pytest.mark.parametrize("user_id", ["a/b", "ann/recommendations", "/", "100%", "%2F", "a b", "é"])
def test_an_id_is_one_segment_whatever_is_in_it(world: Any, release: str, user_id: str) -> None:
    segment = quote(user_id, safe="")
    with world.client() as client:
        client.post("/v1/events", json=world.event("e1", "i1", user_id=user_id))
        known = get(client, f"/v1/users/{segment}")
        assert get(client, f"/v1/users/{segment}/recommendations")["source"] == "live"
        assert client.delete(f"/v1/users/{segment}").status_code == 202
        assert client.get(f"/v1/users/{segment}").status_code == 404
    assert (known["user_id"], known["live_events"]) == (user_id, 1)


def test_figures_name_routes_not_paths(world: Any, release: str) -> None:
    with world.client() as client:
        get(client, "/v1/items/i3/similar")
        client.get("/some/thing")
        text = client.get("/metrics").text
    route = "/v1/items/{item_id}/similar"
    assert f'nearline_requests_total{{endpoint="{route}",status="200"}} 1.0' in text
    assert f'nearline_answers_total{{endpoint="{route}",source="neighbours"}} 1.0' in text
    assert 'nearline_requests_total{endpoint="none",status="404"} 1.0' in text
    assert f'version="{release}"' in text
    assert "i3" not in text
