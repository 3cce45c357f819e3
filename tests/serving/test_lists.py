"""Filters, rules, sources and reasons, through the real app."""

from datetime import timedelta
from typing import Any, get_args

import numpy as np
import pytest

from nearline.words import bucket
from serving.reasons import Reason, ReasonCode

ITEMS = tuple(f"i{n}" for n in range(30))


def get(client: Any, path: str, **params: Any) -> dict[str, Any]:
    response = client.get(path, params=params)
    assert response.status_code == 200, response.text
    return dict(response.json())


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def shop(world: Any) -> str:
    """Thirty items: every third is noir, price = number, every fifth is red; ann touched i1."""
    world.catalogue(
        *(
            {
                "item_id": f"i{n}",
                "categories": ["noir" if n % 3 == 0 else "farce"],
                "attributes": {"price": n, "color": "red" if n % 5 == 0 else "blue"},
            }
            for n in range(30)
        )
    )
    world.store.put_sequence("ann", [("i1", "play", world.now - timedelta(hours=1))])
    return str(world.promote(ITEMS))


def nearest(world: Any, release: str, allowed: set[str]) -> list[str]:
    """What ann's vector is nearest to, without any of serving."""
    model = world.models[release]
    gap = np.array([13])  # an hour: 2^11 <= 3600 s < 2^12
    vector = model.encode(np.array([2]), np.array([1]), gap)
    order = np.argsort(-(model.items[1:] @ vector))
    return [f"i{row}" for row in order if f"i{row}" in allowed]


@pytest.mark.parametrize(
    ("params", "allowed"),
    [
        ({"category": "noir"}, lambda n: n % 3 == 0),
        ({"category": ["noir", "farce"]}, lambda n: True),
        ({"price_min": 5, "price_max": 12.5}, lambda n: 5 <= n <= 12),
        ({"attribute": "color:red"}, lambda n: n % 5 == 0),
        ({"attribute": ["color:red", "color:blue"]}, lambda n: True),
        ({"attribute": ["color:red", "price:10"]}, lambda n: n == 10),
        ({"category": "noir", "attribute": "color:red", "price_max": 20}, lambda n: n in (0, 15)),
        ({"exclude": ["i4", "i5", "nowhere"]}, lambda n: n not in (4, 5)),
    ],
)
def test_filters_hold_and_keep_the_order(world: Any, params: Any, allowed: Any) -> None:
    release = shop(world)
    wanted = {f"i{n}" for n in range(30) if n != 1 and allowed(n)}
    with world.client() as client:
        path = "/v1/users/ann/recommendations"
        answer = get(client, path, limit=100, fill=False, **params)
        site = get(client, "/v1/trending", limit=100, fill=False, **params)
    assert ids(answer) == nearest(world, release, wanted)
    assert answer["source"] == "live"
    assert ids(site) == [f"i{n}" for n in range(30) if f"i{n}" in wanted or (n == 1 and allowed(1))]


def test_a_list_that_filters_left_too_short_is_filled_and_says_so(world: Any) -> None:
    release = shop(world)
    with world.client() as client:
        params = {"category": "noir", "attribute": "color:red", "limit": 5}
        answer = get(client, "/v1/users/ann/recommendations", **params)
        metrics = client.get("/metrics").text
    assert set(ids(answer)[:2]) == {"i0", "i15"}
    everything = set(ITEMS) - {"i1", "i0", "i15"}
    assert ids(answer)[2:] == nearest(world, release, everything)[:3]
    assert [item["matches"] for item in answer["items"]] == [True, True, False, False, False]
    few = Reason.FEW_MATCH
    assert answer["filled"] == {"items": 3, "reason": few.value, "reason_code": few.code}
    assert 'nearline_fallbacks_total{reason="few_match"} 1.0' in metrics


def test_filling_up_never_shows_what_may_not_be_shown(world: Any) -> None:
    shop(world)
    with world.client() as client:
        params = {"category": "nothing", "limit": 100, "exclude": ["i2"]}
        answer = get(client, "/v1/users/ann/recommendations", **params)
        nothing = get(client, "/v1/users/ann/recommendations", fill=False, **params)
    assert set(ids(answer)) == set(ITEMS) - {"i1", "i2"}
    assert (nothing["items"], nothing["filled"]["items"]) == ([], 0)


AT = "2026-01-02T12:00:00Z"


def test_a_list_without_a_match_tells_of_the_user_whom_it_is_made_for(world: Any) -> None:
    shop(world)
    with world.client() as client:
        params = {"category": "nothing", "limit": 3}
        answer = get(client, "/v1/users/ann/recommendations", **params)
        nothing = get(client, "/v1/users/ann/recommendations", fill=False, **params)
    for found in (answer, nothing):
        assert (found["source"], found["features"]) == ("live", {"user_sequence": AT})
        assert found["state_age_seconds"] == 3600


def test_features_name_every_list_that_took_part(world: Any) -> None:
    shop(world)
    world.store.neighbours = {"i1": (["i2"], [9.0])}
    world.store.trending = (["i7"], [1.0], world.now - timedelta(minutes=5))
    with world.client() as client:
        own = get(client, "/v1/users/ann/recommendations", limit=30)
        similar = get(client, "/v1/items/i1/similar", limit=3)
        stranger = get(client, "/v1/users/nobody/recommendations", limit=3)
    assert own["features"] == {"user_sequence": AT, "item_neighbours": AT}
    assert similar["features"] == {"item_neighbours": AT}
    assert stranger["features"] == {"trending": "2026-01-02T12:25:00Z"}


def test_a_trending_list_that_fills_up_is_named(world: Any) -> None:
    world.catalogue({"item_id": "i1"}, {"item_id": "i2"}, {"item_id": "new"})
    world.promote(["i1", "i2"])
    world.store.put_sequence("ann", [("i1", "play", world.now - timedelta(hours=1))])
    world.store.trending = (["new"], [1.0], world.now - timedelta(minutes=5))
    with world.client() as client:
        answer = get(client, "/v1/users/ann/recommendations", limit=2)
    assert [item["source"] for item in answer["items"]] == ["encoder", "trending"]
    assert set(answer["features"]) == {"user_sequence", "trending"}


def test_every_reason_has_its_code_for_programs() -> None:
    assert [reason.code for reason in Reason] == list(get_args(ReasonCode))


def test_hidden_and_expired_items_are_not_shown(world: Any) -> None:
    soon = world.now + timedelta(minutes=1)
    world.promote(ITEMS)
    world.catalogue(
        {"item_id": "i0"},
        {"item_id": "i1", "attributes": {"hidden": True}},
        {"item_id": "i2", "attributes": {"hidden": False}},
        {"item_id": "i3", "attributes": {"expires_ts": (world.now).isoformat()}},
        {"item_id": "i4", "attributes": {"expires_ts": soon.isoformat()}},
        {"item_id": "i5", "available": False},
    )
    with world.client() as client:
        before = get(client, "/v1/trending", limit=30)
        world.now = soon
        after = get(client, "/v1/trending", limit=30)
    assert ids(before) == ["i0", "i2", "i4"]
    assert ids(after) == ["i0", "i2"]


def test_what_the_same_users_touch_moves_up(world: Any) -> None:
    release = shop(world)
    near = nearest(world, release, set(ITEMS) - {"i1"})
    far = near[20]
    world.store.neighbours = {"i1": ([far, "gone"], [9.0, 3.0])}
    with world.client() as client:
        answer = get(client, "/v1/users/ann/recommendations", limit=30, explain=True)
        similar = get(client, "/v1/items/i1/similar", limit=30)
    # 1/81 + 0.5/61 is more than 1/61: the far one comes first, the others keep their order.
    assert ids(answer)[:3] == [far, near[0], near[1]]
    assert answer["items"][0]["source"] == "encoder"
    assert answer["items"][0]["why"]["scores"]["cooccurrence"] == 9.0
    assert far in ids(similar)[:2]


def test_a_store_that_fails_on_neighbours_costs_only_these(world: Any) -> None:
    release = shop(world)
    read = world.store.read

    def broken(features: list[str], keys: list[dict[str, str]]) -> Any:
        if features[0].startswith("item_neighbours"):
            raise OSError("gone")
        return read(features, keys)

    world.store.read = broken
    with world.client() as client:
        answer = get(client, "/v1/users/ann/recommendations", limit=4)
        metrics = client.get("/metrics").text
    assert ids(answer) == nearest(world, release, set(ITEMS) - {"i1"})[:4]
    assert (answer["source"], answer["reason_code"]) == ("live", "store_failed")
    failure = 'nearline_source_failures_total{failure="StoreFailed",source="cooccurrence"} 1.0'
    assert failure in metrics


def test_a_new_item_to_the_users_taste_is_proposed(world: Any) -> None:
    world.catalogue(
        {"item_id": "i1", "categories": ["noir"]},
        {"item_id": "i2", "categories": ["noir"]},
        {"item_id": "new", "categories": ["noir"]},
        {"item_id": "every", "categories": ["noir", "farce", "crime", "space"]},
        {"item_id": "other", "categories": ["farce"]},
        {"item_id": "off", "categories": ["noir"], "available": False},
    )
    world.promote(["i1", "i2"])
    world.store.put_sequence("ann", [("i1", "play", world.now - timedelta(hours=1))])
    with world.client() as client:
        answer = get(client, "/v1/users/ann/recommendations", limit=3, explain=True, fill=False)
    assert ids(answer) == ["i2", "new", "every"]
    assert [item["source"] for item in answer["items"]] == ["encoder", "content", "content"]
    assert answer["items"][2]["why"]["scores"] == {"content": 0.25}


def words_like(world: Any, version: str, **like: str) -> np.ndarray:
    """A table of words in which each named one points where an item of a release does."""
    items = world.models[version].items[1:]
    table = np.zeros((101, items.shape[1]), dtype=np.float16)
    for word, item in like.items():
        table[bucket(f"word:{word}", 100)] = items[ITEMS.index(item)]
    return table


def test_a_new_item_stands_where_its_words_point_the_minute_it_comes(world: Any) -> None:
    words = words_like(world, world.promote(ITEMS), tango="i3", waltz="i5")
    world.promote(ITEMS, words=words)
    new = {"item_id": "new", "title": "Tango", "created_ts": world.now.isoformat()}
    with world.client() as client:
        before = ids(get(client, "/v1/items/i3/similar", limit=5))
        client.put("/v1/items", json=[new, new | {"item_id": "off", "available": False}])
        after = get(client, "/v1/items/i3/similar", limit=5)
        back = get(client, "/v1/items/new/similar", limit=5)
        client.put("/v1/items", json=new | {"title": "Waltz"})
        changed = get(client, "/v1/items/i5/similar", limit=5)
    assert ids(after) == ["new", *before[:4]]
    assert after["items"][0]["score"] == pytest.approx(1, abs=1e-3)
    assert (back["source"], ids(back)) == ("neighbours", ["i3", *before[:4]])
    assert ids(changed)[0] == "new"


def test_a_user_gets_a_new_item_among_the_encoders(world: Any) -> None:
    version = world.promote(ITEMS)
    world.store.put_sequence("ann", [("i1", "play", world.now - timedelta(hours=1))])
    first = nearest(world, version, set(ITEMS) - {"i1"})[0]
    world.promote(ITEMS, words=words_like(world, version, tango=first))
    world.catalogue(*({"item_id": item} for item in ITEMS), {"item_id": "new", "title": "Tango"})
    with world.client() as client:
        answer = get(client, "/v1/users/ann/recommendations", limit=3)
        excluded = get(client, "/v1/users/ann/recommendations", limit=3, exclude="new")
    assert set(ids(answer)[:2]) == {first, "new"}
    assert {item["source"] for item in answer["items"]} == {"encoder"}
    assert "new" not in ids(excluded)


def test_a_category_takes_no_more_than_its_share(world: Any) -> None:
    """Six of ten; what is beyond comes back only where there is nothing else."""
    release = shop(world)
    order = nearest(world, release, set(ITEMS) - {"i1"})
    noir = [item for item in order if int(item[1:]) % 3 == 0]
    farce = [item for item in order if int(item[1:]) % 3]
    with world.client() as client:
        answer = get(client, "/v1/users/ann/recommendations", limit=10)
        one_kind = get(client, "/v1/users/ann/recommendations", limit=10, category="farce")
    assert len(set(order[:10]) & set(farce)) > 6
    assert ids(answer) == sorted([*farce[:6], *noir[:4]], key=order.index)
    assert ids(one_kind) == farce[:10]


def test_why_an_item_is_there(world: Any) -> None:
    release = shop(world)
    world.store.put_sequence(
        "ann",
        [(item, "play", world.now - timedelta(hours=3 - n)) for n, item in enumerate(["i1", "i7"])],
    )
    matrix = world.models[release].items[1:]
    with world.client() as client:
        plain = get(client, "/v1/users/ann/recommendations", limit=3)
        answer = get(client, "/v1/users/ann/recommendations", limit=3, explain=True)
    assert plain["items"][0]["why"] is None
    first = answer["items"][0]
    because = first["why"]["because"]
    row = int(first["item_id"][1:])
    cosines = {item: float(matrix[row] @ matrix[int(item[1:])]) for item in ("i1", "i7")}
    assert [tie["item_id"] for tie in because] == sorted(cosines, key=lambda i: -cosines[i])
    assert because[0]["similarity"] == pytest.approx(max(cosines.values()), abs=1e-6)
    assert because[0]["title"] == because[0]["item_id"].upper()
    assert because[0]["event_type"] == "play"
    assert first["why"]["scores"] == {"encoder": pytest.approx(first["score"])}
    assert answer["features"] == {"user_sequence": "2026-01-02T12:00:00Z"}


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limt=3", "query.limt"),
        ("price_min=cheap", "query.price_min"),
        ("price_max=inf", "query.price_max"),
        ("price_min=50&price_max=1", "query.price_max"),
        ("attribute=red", "query.attribute.0"),
        ("surface=", "query.surface"),
        ("&".join(f"exclude=i{n}" for n in range(501)), "query.exclude"),
    ],
)
def test_a_wrong_query_is_refused_by_its_name(world: Any, query: str, pointer: str) -> None:
    shop(world)
    with world.client() as client:
        response = client.get(f"/v1/users/ann/recommendations?{query}")
    assert response.status_code == 422
    assert [wrong["pointer"] for wrong in response.json()["errors"]] == [pointer]


@pytest.fixture
def described(world: Any) -> dict[str, Any]:
    with world.client() as client:
        return dict(client.get("/openapi.json").json())


def test_the_api_describes_itself_with_examples(described: dict[str, Any]) -> None:
    models = described["components"]["schemas"]
    for path, operations in described["paths"].items():
        for operation in operations.values():
            assert operation["description"], path
            assert operation["tags"], path
            for parameter in operation.get("parameters", ()):
                schema = parameter["schema"]
                assert "default" in schema or schema.get("examples"), (path, parameter["name"])
            for status, response in operation["responses"].items():
                (media_type,) = response["content"]
                assert (media_type == "application/problem+json") == (int(status) >= 400)
                answer = response["content"][media_type]["schema"]["$ref"].split("/")[-1]
                assert models[answer]["examples"], answer


def test_an_operation_lists_the_errors_that_it_can_give(described: dict[str, Any]) -> None:
    def errors(path: str, method: str = "get") -> set[int]:
        found = map(int, described["paths"][path][method]["responses"])
        return {status for status in found if status >= 400}

    keyed, body = {401, 403, 421, 429, 500}, {400, 408, 413, 415, 422}
    assert errors("/healthz") == {500}
    assert errors("/readyz") == {500, 503}
    assert errors("/v1/release") == keyed | {503}
    assert errors("/v1/trending") == keyed | {422, 503}
    assert errors("/v1/items/{item_id}/similar") == keyed | {404, 422, 503}
    assert errors("/v1/events", "post") == keyed | body | {507}
    assert errors("/v1/users/{user_id}", "delete") == keyed | {422, 507}
    assert errors("/v1/admin/releases/promote", "post") == keyed | body | {404, 409}
