"""Releases go live and back over HTTP, by the rules of the store."""

from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response

ITEMS = ("i0", "i1", "i2")


def promote(client: TestClient, version: str) -> Response:
    return client.post("/v1/admin/releases/promote", json={"version": version})


def rollback(client: TestClient, **body: Any) -> Response:
    return client.post("/v1/admin/releases/rollback", json=body)


def test_a_release_goes_live_and_back(world: Any, eventually: Any) -> None:
    first = world.promote(ITEMS)
    second = world.publish(ITEMS, seed=2)
    with world.client() as client:
        for _ in range(2):  # asking again changes nothing
            moved = promote(client, second).json()
            assert (moved["active"], moved["before"]) == (second, first)
        eventually(lambda: client.get("/v1/trending").json()["release"] == second)
        back = rollback(client).json()
        assert (back["active"], back["before"]) == (first, None)
        eventually(lambda: client.get("/v1/trending").json()["release"] == first)
        held = promote(client, second)
        assert (held.status_code, held.json()["code"]) == (409, "release_refused")
        assert "was rolled back" in held.json()["detail"]
        assert rollback(client, version=second).json()["active"] == second
    assert world.releases.active() == second


def test_the_log_tells_whose_key_moved_the_pointer(
    world: Any, keyed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    version = world.publish(ITEMS)
    headers = {"x-request-id": "r1", "authorization": f"Bearer {keyed('admin', name='ops')}"}
    writer = {"authorization": f"Bearer {keyed('write')}"}
    with world.client() as client:
        body, path = {"version": version}, "/v1/admin/releases/promote"
        assert client.post(path, json=body, headers=writer).status_code == 403
        assert world.releases.active() is None
        assert client.post(path, json=body, headers=headers).json()["active"] == version
    assert f"{version} is active by request r1 of 'ops'" in caplog.text


def test_what_may_not_go_live_leaves_the_old_one_in_place(world: Any) -> None:
    old = world.promote(ITEMS)
    refused = world.publish(ITEMS, seed=2, refused="worse than popularity")
    overtaken = world.publish(ITEMS, seed=3, parent=refused)
    older = world.publish(ITEMS, seed=4, until=world.now.replace(minute=0) - timedelta(days=1))
    corrupt = world.publish(ITEMS, seed=5)
    (world.releases.root / corrupt / "config.json").write_text("{}")
    expected = {
        "nothing": (404, "unknown_release", "no release 'nothing'"),
        refused: (409, "release_refused", "worse than popularity"),
        overtaken: (409, "release_refused", f"was made from {refused}"),
        older: (409, "release_refused", "ends before the night"),
        corrupt: (409, "corrupt_release", "was changed"),
        "a" * 129: (422, "invalid", "body.version"),
        "../x": (422, "invalid", "body.version"),
    }
    with world.client() as client:
        for version, (status, code, told) in expected.items():
            answer = promote(client, version)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
            assert told in answer.json()["detail"]
            assert str(world.releases.root) not in answer.text
        for version in (refused, corrupt, "nothing", None):
            assert rollback(client, version=version).status_code in (404, 409)
        assert world.releases.active() == old
        assert client.get("/v1/release").json()["version"] == old


def test_a_torn_pointer_is_told_of_and_written_anew_by_a_rollback(world: Any) -> None:
    version = world.promote(ITEMS)
    with world.client() as client:
        (world.releases.root / "active.json").write_text("{")
        for told in (client.get("/v1/releases"), promote(client, version), rollback(client)):
            assert (told.status_code, told.json()["code"]) == (409, "corrupt_release")
            assert "rollback VERSION" in told.json()["detail"]
        assert client.get("/v1/release").json()["version"] == version
        assert rollback(client, version=version).json()["active"] == version
