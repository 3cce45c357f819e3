"""The pointer moves while requests run: each is answered by one release, and none fails."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import cycle, product
from typing import Any

import numpy as np
import pytest

from nearline.settings import settings
from serving.answers import Answer, Asked

OLD, NEW = (tuple(f"{name}{n}" for n in range(30)) for name in ("old", "new"))
SHARED = ("both",)


@contextmanager
def load(ask: Callable[[], Any]) -> Iterator[list[Any]]:
    """Three threads that ask again and again; all that they were answered so far."""
    answers: list[Any] = []
    stop = threading.Event()

    def ask_on() -> None:
        while not stop.is_set():
            answers.append(ask())

    threads = [threading.Thread(target=ask_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_no_answer_mixes_releases_and_none_fails(world: Any, eventually: Any) -> None:
    old = world.promote([*SHARED, *OLD])
    new = world.publish([*SHARED, *NEW], seed=2)
    prefix = {old: "old", new: "new"}
    world.store.put_sequence("ann", [("both", "play", world.now - timedelta(hours=1))])
    paths = cycle(
        ["users/ann/recommendations", "users/nobody/recommendations", "items/both/similar"]
    )

    def ask() -> tuple[int, dict[str, Any]]:
        response = client.get(f"/v1/{next(paths)}")
        return response.status_code, response.json()

    with world.client() as client, load(ask) as answers:
        for version in (new, old, new):
            world.releases.promote(version)
            eventually(lambda version=version: client.get("/readyz").json()["release"] == version)
            seen = len(answers)
            eventually(lambda seen=seen: len(answers) > seen + 20)

    assert {status for status, _ in answers} == {200}
    for _, body in answers:
        found = {item["item_id"] for item in body["items"]} - set(SHARED)
        assert found, body
        assert all(item.startswith(prefix[body["release"]]) for item in found), body
    assert {body["release"] for _, body in answers} == {old, new}


ITEMS = tuple(f"i{n:02}" for n in range(40))
Listed = tuple[int, str, tuple[str, ...]]
"""Status, release and items of an answer."""


class Ann:
    """A user who has touched the first item, and whose vector is pushed by any release."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.vectors = {v: world.models[v].items[9] for v in world.models}
        world.store.put_sequence("ann", [(ITEMS[0], "play", world.now - timedelta(hours=1))])

    def push(self, version: str) -> None:
        """Her vector online becomes one of this release, at once."""
        self.world.store.users["ann"] = self.world.store.users["ann"] | {
            "user_embedding__release": version,
            "user_embedding__embedding": self.vectors[version].tolist(),
            "user_embedding__release__ts": int(self.world.now.timestamp()),
        }

    def product(self, items_of: str, vector_of: str) -> Listed:
        """The list that the items of one release and her vector of another would make."""
        scores = self.world.models[items_of].items[2:] @ self.vectors[vector_of]
        rows = np.argsort(-scores)[:10]
        return 200, items_of, tuple(ITEMS[row + 1] for row in rows)


def test_twenty_swaps_under_load_fail_nothing_and_mix_nothing(
    world: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two releases of the same items; a product of vectors of both would give a list of its own."""
    monkeypatch.setattr("serving.service._LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(settings(), "kept_seconds", 0)
    versions = world.promote(ITEMS, seed=1), world.publish(ITEMS, seed=2)
    ann = Ann(world)

    def ask() -> Listed:
        response = client.get("/v1/users/ann/recommendations?limit=10")
        body = response.json()
        return response.status_code, body["release"], tuple(i["item_id"] for i in body["items"])

    def swap(version: str) -> None:
        world.releases.promote(version)
        eventually(lambda: client.get("/readyz").json()["release"] == version)

    with world.client() as client:
        right: set[Listed] = set()
        for active, online in product(versions, versions):
            ann.push(online)
            swap(active)
            right.add(ask())
        with load(ask) as answers:
            for version in versions * 10:
                ann.push(version)
                swap(version)
                seen = len(answers)
                eventually(lambda seen=seen: len(answers) > seen + 5)
        figures = client.get("/metrics").text

    assert len(right) == 4, "stored or encoded, of either release: each makes another list"
    for active, online in product(versions, versions):
        assert (ann.product(active, online) in right) is (active == online)
    assert set(answers) <= right
    assert {release for _, release, _ in answers} == set(versions)
    for outcome in ("stored", "stored_other_release"):
        assert f'nearline_user_vectors_total{{outcome="{outcome}"}}' in figures


def test_a_request_keeps_the_release_that_it_began_with(world: Any) -> None:
    old = world.promote([*SHARED, *OLD])
    service = world.service()
    with world.client(service):
        pinned = service.active.pin()
        new = world.promote([*SHARED, *NEW], seed=2)
        service.active.refresh()
        answer: Answer = service.recommender.similar(pinned, "both", Asked(limit=5), now=world.now)
        assert (answer.release, service.active.pin().release.version) == (old, new)
    assert all(item.item_id.startswith("old") for item in answer.items)
