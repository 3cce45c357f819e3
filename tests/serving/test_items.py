"""Items put by the API, and what was shown, through the real app and the real journals."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nearline.errors import BadInput
from nearline.given import GivenVectors
from nearline.intake import close_hours, prune_journals
from nearline.intake.impressions import IMPRESSION_SCHEMA, IMPRESSIONS
from nearline.lake import CATALOGUE, Lake
from nearline.records import Item
from nearline.schema import ITEM_SCHEMA
from nearline.sources.dataset import upsert_items
from nearline.windows import HOUR, Window

ITEMS = tuple(f"i{n}" for n in range(6))


def item(item_id: str, **changes: Any) -> dict[str, Any]:
    return {"item_id": item_id, "title": "T", "created_ts": "2026-01-01T00:00:00Z"} | changes


def trending(client: Any) -> dict[str, str]:
    answer = client.get("/v1/trending?limit=50").json()
    return {found["item_id"]: found["title"] for found in answer["items"]}


def catalogue(world: Any) -> dict[str, str]:
    rows = world.lake.read_snapshot(CATALOGUE, schema=ITEM_SCHEMA).to_pylist()
    return {row["item_id"]: row["title"] for row in rows}


def close(world: Any) -> None:
    close_hours(Window.of_hour(world.now), clock=lambda: world.now)


@pytest.fixture
def client(world: Any) -> Any:
    world.catalogue(*({"item_id": i, "title": "old"} for i in ITEMS))
    world.promote(ITEMS)
    with world.client() as found:
        yield found


def test_an_item_that_is_put_is_part_of_the_next_answer(world: Any, client: Any) -> None:
    put = client.put("/v1/items", json=item("i1", title="other"))
    assert (put.status_code, put.json()["accepted"]) == (200, 1)
    assert trending(client) == dict.fromkeys(ITEMS, "old") | {"i1": "other"}
    client.put("/v1/items", json=[item("i1", available=False), item("new", categories=["noir"])])
    assert trending(client) == dict.fromkeys(set(ITEMS) - {"i1"}, "old") | {"new": "T"}
    found = client.get("/v1/trending?category=noir&fill=false").json()["items"]
    assert [each["item_id"] for each in found] == ["new"]
    assert catalogue(world) == dict.fromkeys(ITEMS, "old")


def test_an_item_is_put_while_the_catalogue_is_written_and_comes_in_with_the_next(
    world: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Lake.write_snapshot
    client.put("/v1/items", json=item("i1", title="first"))

    def slowly(*given: Any, **named: Any) -> Any:
        put = pool.submit(client.put, "/v1/items", json=item("i1", title="second"))
        assert put.result(timeout=10).json()["accepted"] == 1
        return write(*given, **named)

    with ThreadPoolExecutor(1) as pool, monkeypatch.context() as patch:
        patch.setattr(Lake, "write_snapshot", slowly)
        close(world)
    assert catalogue(world)["i1"] == "first"
    assert trending(client)["i1"] == "second"
    close(world)
    assert catalogue(world)["i1"] == trending(client)["i1"] == "second"


def test_an_item_comes_in_after_a_write_of_the_catalogue_that_failed(
    world: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    client.put("/v1/items", json=item("i1", title="first"))
    with monkeypatch.context() as patch:
        patch.setattr(Lake, "write_snapshot", fail)
        with pytest.raises(OSError, match="No space left"):
            close(world)
    assert catalogue(world)["i1"] == "old"
    assert trending(client)["i1"] == "first"
    close(world)
    assert catalogue(world)["i1"] == trending(client)["i1"] == "first"


def test_an_item_needs_no_title(world: Any, client: Any) -> None:
    silent = item("i1")
    del silent["title"]
    assert client.put("/v1/items", json=silent).json()["accepted"] == 1
    assert trending(client) == dict.fromkeys(ITEMS, "old") | {"i1": None}
    close(world)
    assert catalogue(world)["i1"] is None


def test_the_first_items_that_are_put_hide_no_others(world: Any, eventually: Any) -> None:
    world.promote(ITEMS)
    with world.client() as client:
        client.put("/v1/items", json=[item("i1", available=False), item("i2")])
        shown = set(ITEMS) - {"i1"}
        assert set(trending(client)) == shown
        close(world)
        assert set(catalogue(world)) == {"i1", "i2"}
        client.put("/v1/items", json=item("i3", available=False))
        close(world)
        eventually(lambda: client.get("/v1/release").json()["recommendable"] == 4)
        assert set(trending(client)) == shown - {"i3"}
        rows = [Item(**item(i)).row() for i in ("i4", "i5")]
        upsert_items(world.lake, pa.Table.from_pylist(rows, schema=ITEM_SCHEMA))
        eventually(lambda: set(trending(client)) == {"i2", "i4", "i5"})


def test_a_new_item_stands_where_its_image_points_until_a_release_knows_it(
    world: Any, eventually: Any
) -> None:
    items = world.models[world.promote(ITEMS)].items[1:]
    words, nothing = np.zeros((101, items.shape[1]), np.float16), np.zeros((2, items.shape[1]))
    given = GivenVectors((0, 2, 0), nothing.astype(np.float32), np.array([3, 5]), np.eye(2))
    world.promote(ITEMS, words=words, given=given)
    with world.client() as client:

        def stands_at(item_id: str) -> bool:
            (first,) = client.get(f"/v1/items/{item_id}/similar?limit=1").json()["items"]
            return bool(first["item_id"] == "new" and first["score"] > 0.999)

        client.put("/v1/items", json=item("new", title="", image_vector=[0.1, 0.0]))
        assert stands_at("i3")
        client.put("/v1/items", json=item("new", title="", image_vector=[0.0, 7.0]))
        assert stands_at("i5")
        assert not stands_at("i3")
        close(world)
        rows = [Item(**item("later")).row()]
        upsert_items(world.lake, pa.Table.from_pylist(rows, schema=ITEM_SCHEMA))
        eventually(lambda: "later" in trending(client))
        assert stands_at("i5"), "the snapshot has it now, without its vectors at hand"


def test_a_bad_item_does_not_keep_the_others_out(world: Any, client: Any) -> None:
    bad = [
        item("b1", attributes={"price": "cheap"}),
        item("b2", attributes={"price": 10**400}),
        item("b3", attributes={"expires_ts": "soon"}),
        item("b4", attributes={"expires_ts": 20260101}),
        item("b5", attributes={"hidden": 1}),
        item("b6", colour="red"),
        {"item_id": "b7"},
        "no item",
    ]
    answer = client.put("/v1/items", json=[*bad, item("good")])
    body = answer.json()
    assert (answer.status_code, body["accepted"], body["refused"]) == (207, 1, 8)
    told = [receipt["reason"] for receipt in body["items"]]
    expected = ["price", "price", "expires_ts", "expires_ts", "hidden", "colour", "created_ts"]
    for reason, name in zip(told, [*expected, "item:"], strict=False):
        assert name in reason
    assert told[-1] is None
    alone = client.put("/v1/items", json=bad[0])
    assert (alone.status_code, alone.json()["code"]) == (422, "item_refused")
    assert client.put("/v1/items", json=[]).json()["code"] == "invalid"


def test_vectors_of_one_kind_are_of_one_length(world: Any, client: Any) -> None:
    def reasons(*items: dict[str, Any]) -> list[str | None]:
        answer = client.put("/v1/items", json=list(items)).json()
        return [receipt["reason"] for receipt in answer["items"]]

    seen = item("i1", image_vector=[1.0, 2.0])
    first, second = reasons(seen, item("i2", image_vector=[1.0]))
    assert first is None
    assert second is not None
    assert "image_vector has 1 numbers, those of other items have 2" in second
    close(world)
    (third,) = reasons(item("i3", image_vector=[1.0, 2.0, 3.0], audio_vector=[1.0]))
    assert third is not None
    assert "image_vector has 3 numbers" in third
    for bad in ([], [1e300], ["x"]):
        assert reasons(item("i3", audio_vector=bad)) != [None]
    rows = world.lake.read_snapshot(CATALOGUE, schema=ITEM_SCHEMA).to_pylist()
    assert {row["item_id"]: row["image_vector"] for row in rows}["i1"] == [1.0, 2.0]


def test_two_first_vectors_of_unlike_length_leave_the_item_and_drop_one(
    world: Any, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for name, vector in (("i1", [1.0, 2.0]), ("i2", [1.0])):
        client.put("/v1/items", json=item(name, text_vector=vector))
    close(world)
    rows = world.lake.read_snapshot(CATALOGUE, schema=ITEM_SCHEMA).to_pylist()
    found = {row["item_id"]: row["text_vector"] for row in rows}
    assert (found["i1"], found["i2"]) == ([1.0, 2.0], None)
    assert "item 'i2': text_vector has 1 numbers" in caplog.text


def test_a_new_encoder_s_vectors_replace_all_at_once(world: Any, client: Any) -> None:
    def load(**vectors: list[float]) -> None:
        rows = [Item(**item(i, text_vector=vector)).row() for i, vector in vectors.items()]
        upsert_items(world.lake, pa.Table.from_pylist(rows, schema=ITEM_SCHEMA))

    load(i1=[1.0, 2.0], i2=[3.0, 4.0])
    with pytest.raises(BadInput, match="all vectors of one kind"):
        load(i1=[1.0])
    load(i1=[1.0], i2=[2.0])
    rows = world.lake.read_snapshot(CATALOGUE, schema=ITEM_SCHEMA).to_pylist()
    assert [row["text_vector"] for row in rows if row["text_vector"]] == [[1.0], [2.0]]


def test_closing_an_hour_brings_items_into_the_lake_once(world: Any, client: Any) -> None:
    client.put("/v1/items", json=[item("new", title="first"), item("i1", title="put")])
    client.put("/v1/items", json=item("new", title="second"))
    close(world)
    expected = dict.fromkeys(ITEMS, "old") | {"new": "second", "i1": "put"}
    assert catalogue(world) == trending(client) == expected
    path = world.lake.snapshot_path(CATALOGUE)
    before = world.lake.fs.cat_file(path)
    close(world)
    assert world.lake.fs.cat_file(path) == before


def test_a_load_after_a_put_stands_and_a_put_after_a_load_stands(
    world: Any, client: Any, eventually: Any
) -> None:
    def load(item_id: str, title: str) -> None:
        rows = [Item(**item(item_id, title=title)).row()]
        upsert_items(world.lake, pa.Table.from_pylist(rows, schema=ITEM_SCHEMA))

    client.put("/v1/items", json=[item("i1", title="put"), item("i2", title="put")])
    load("i1", "loaded")
    eventually(lambda: trending(client)["i1"] == "loaded")
    assert trending(client)["i2"] == "put"
    client.put("/v1/items", json=item("i1", title="put again"))
    assert trending(client)["i1"] == "put again"
    close(world)
    assert (catalogue(world)["i1"], catalogue(world)["i2"]) == ("put again", "put")


def test_a_clock_that_goes_back_loses_no_item(world: Any, client: Any) -> None:
    client.put("/v1/items", json=item("i1", title="put"))
    close(world)
    world.now -= timedelta(minutes=10)
    client.put("/v1/items", json=item("i1", title="later"))
    assert trending(client)["i1"] == "later"
    close(world)
    assert catalogue(world)["i1"] == "later"


def test_a_restart_keeps_what_was_put(world: Any, client: Any) -> None:
    client.put("/v1/items", json=item("new"))
    with world.client() as other:
        assert "new" in trending(other)
    world.now += 60 * HOUR
    assert prune_journals(world.now - 50 * HOUR) == 2  # items, and what was shown
    assert catalogue(world)["new"] == "T"
    with world.client() as other:
        assert "new" in trending(other)


def test_what_was_shown_becomes_a_dataset_of_the_lake(world: Any, client: Any) -> None:
    headers = {"x-request-id": "page-1"}
    path = "/v1/users/ann/recommendations?limit=2&surface=home"
    answer = client.get(path, headers=headers).json()
    client.get("/v1/items/i1/similar?limit=3")
    close(world)
    hour = Window.of_hour(world.now)
    rows = world.lake.read(IMPRESSIONS, hour, schema=IMPRESSION_SCHEMA).to_pylist()
    first, second = rows
    assert first["item_ids"] == [found["item_id"] for found in answer["items"]]
    assert first["request_id"] == answer["request_id"] != "page-1"
    assert (first["user_id"], first["surface"]) == ("ann", "home")
    assert (first["kind"], first["source"], first["release"]) == (
        *("user", "popular"),
        answer["release"],
    )
    assert first["sources"] == ["popular", "popular"]
    assert (second["kind"], second["item_id"], second["user_id"]) == ("similar", "i1", None)
    before = [world.lake.fs.cat_file(path) for path in world.lake.files(IMPRESSIONS, hour)]
    close(world)
    after = [world.lake.fs.cat_file(path) for path in world.lake.files(IMPRESSIONS, hour)]
    assert before == after


def test_a_list_that_cannot_be_logged_is_answered_all_the_same(
    world: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        assert client.get("/v1/trending").status_code == 200
        refused = client.post("/v1/events", json=world.event("e1", "i1"))
        assert (refused.status_code, refused.json()["code"]) == (507, "not_kept")
    assert client.get("/v1/trending").status_code == 200
    figures = client.get("/metrics").text
    assert 'nearline_impressions_total{status="lost"} 1.0' in figures
    assert 'nearline_impressions_total{status="logged"} 1.0' in figures
