"""The pointer moves while requests run: each is answered by one release, and none fails."""

import threading
from collections import Counter
from datetime import timedelta
from typing import Any

from serving.answers import Answer, Asked

OLD, NEW = (tuple(f"{name}{n}" for n in range(30)) for name in ("old", "new"))
SHARED = ("both",)


def test_no_answer_mixes_releases_and_none_fails(world: Any, eventually: Any) -> None:
    old = world.promote([*SHARED, *OLD])
    new = world.publish([*SHARED, *NEW], seed=2)
    prefix = {old: "old", new: "new"}
    world.store.put_sequence("ann", [("both", "play", world.now - timedelta(hours=1))])
    paths = [
        "/v1/users/ann/recommendations",
        "/v1/users/nobody/recommendations",
        "/v1/items/both/similar",
    ]
    answers: list[tuple[int, dict[str, Any]]] = []
    stop = threading.Event()

    def ask(client: Any) -> None:
        while not stop.is_set():
            for path in paths:
                response = client.get(path)
                answers.append((response.status_code, response.json()))

    with world.client() as client:
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for version in (new, old, new):
            world.releases.promote(version)
            eventually(lambda version=version: client.get("/readyz").json()["release"] == version)
            seen = len(answers)
            eventually(lambda seen=seen: len(answers) > seen + 20)
        stop.set()
        for thread in threads:
            thread.join()

    assert {status for status, _ in answers} == {200}
    for _, body in answers:
        found = {item["item_id"] for item in body["items"]} - set(SHARED)
        assert found, body
        assert all(item.startswith(prefix[body["release"]]) for item in found), body
    assert set(Counter(body["release"] for _, body in answers)) == {old, new}


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
