"""An online store that hangs or fails: what it costs, and what is told of it."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import httpx
import pytest

from nearline.settings import settings
from serving.errands import Errands
from serving.features import FeatureReader, StoreLate

ITEMS = tuple(f"i{n}" for n in range(12))
USERS = [f"u{n}" for n in range(20)]


@pytest.fixture
def hangs(world: Any) -> Iterator[Event]:
    """A store whose reads end when the event is set."""
    goes_on, read = Event(), world.store.read

    def hang(*asked: Any) -> Any:
        found = read(*asked)
        goes_on.wait(60)
        return found

    world.store.read = hang
    yield goes_on
    goes_on.set()


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEARLINE_FEATURE_DEADLINE_MS", "50")
    settings.cache_clear()


def service_of(world: Any, hangs: Event) -> Any:
    """A service that starts while the store answers."""
    service = world.service()
    service.reader.warm = lambda: None
    return service


def test_many_users_cost_one_read_and_one_deadline(
    world: Any, hangs: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    world.promote(ITEMS)
    with world.client(service_of(world, hangs)) as client:
        answer = client.post("/v1/recommendations", json={"user_ids": USERS, "limit": 2}).json()
    assert {each["reason_code"] for each in answer["lists"]} == {"store_late"}
    [(_, keys)] = world.store.asked
    assert [key["user_id"] for key in keys] == USERS


def test_users_are_read_together_where_the_store_answers(world: Any) -> None:
    world.promote(ITEMS)
    for user in USERS[:3]:
        world.store.put_sequence(user, [("i1", "play", world.now)])
    with world.client() as client:
        world.store.asked.clear()
        answer = client.post("/v1/recommendations", json={"user_ids": USERS}).json()
    assert [each["source"] for each in answer["lists"]] == ["live"] * 3 + ["popular"] * 17
    read = [features[0].split(":")[0] for features, _ in world.store.asked]
    assert read == ["user_sequence", "item_neighbours", "trending"]


def test_a_store_that_is_late_again_and_again_is_left_alone_for_a_while(
    world: Any, hangs: Event, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.features._LEFT_ALONE_S", 0.3)
    monkeypatch.setattr(Errands, "submit", counted := Counted(Errands.submit))
    reader = FeatureReader(lambda: world.store, deadline_ms=5)
    for _ in range(10):
        with pytest.raises(StoreLate):
            reader.user("ann")
    assert counted.calls == 3
    hangs.set()
    eventually(lambda: answers(reader))
    reader.close()


class Counted:
    """A method, and how often it was called."""

    def __init__(self, method: Any) -> None:
        self.method, self.calls = method, 0

    def __get__(self, instance: Any, owner: Any) -> Any:
        self.calls += 1
        return self.method.__get__(instance, owner)


def answers(reader: FeatureReader) -> bool:
    try:
        reader.user("ann")
    except StoreLate:
        return False
    return True


def test_a_process_ends_although_a_read_hangs() -> None:
    program = (
        "import threading\n"
        "from serving.features import FeatureReader, StoreLate\n"
        "reader = FeatureReader(threading.Event().wait, deadline_ms=1)\n"
        "try:\n    reader.user('ann')\n"
        "except StoreLate:\n    reader.close()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_balancer_is_answered_while_every_thread_waits_for_the_store(
    world: Any, hangs: Event, listening: Any, eventually: Any
) -> None:
    world.promote(ITEMS)
    with listening(world.app(service_of(world, hangs))) as port, ThreadPoolExecutor(60) as callers:
        url = f"http://127.0.0.1:{port}"
        path = f"{url}/v1/users/ann/recommendations"
        asked = [callers.submit(httpx.get, path, timeout=60) for _ in range(60)]
        try:
            eventually(lambda: world.store.asked)
            for probe in ("healthz", "readyz"):
                assert httpx.get(f"{url}/{probe}", timeout=5).status_code == 200
        finally:
            hangs.set()
        assert {each.result().status_code for each in asked} == {200}


def test_what_a_store_says_of_its_failure_is_not_logged(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    world.promote(ITEMS)
    with world.client() as client, caplog.at_level(logging.DEBUG):
        world.store.error = OSError("no row for ann@example.com")
        answer = client.get("/v1/users/ann@example.com/recommendations").json()
        similar = client.get("/v1/items/i1/similar").json()
    assert (answer["reason_code"], similar["reason_code"]) == ("store_failed", "store_failed")
    told = [record.getMessage() for record in caplog.records if record.name.startswith("serving")]
    assert "the online store failed: OSError" in told
    assert not any("ann@" in text for text in told)
