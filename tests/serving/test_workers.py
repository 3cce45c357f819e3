"""Real processes that share one installation: what one takes in, all answer from."""

import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import psutil
import pytest

from nearline.settings import settings
from serving.workers import EachItsOwn

ITEMS = tuple(f"i{n}" for n in range(12))
ANN = "/v1/users/ann/recommendations?limit=100"


def shown(url: str) -> set[str]:
    """What ann is shown, asked over a connection of its own."""
    answer = httpx.get(url + ANN, timeout=30).json()
    return {item["item_id"] for item in answer["items"]}


def play(event_id: str, item_id: str) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "user_id": "ann",
        "item_id": item_id,
        "event_type": "play",
        "event_ts": datetime.now(UTC).isoformat(),
        "value": 1.0,
    }


def new_item(item_id: str, **changes: Any) -> dict[str, Any]:
    return {"item_id": item_id, "title": "New", "created_ts": "2026-01-01T00:00:00Z"} | changes


def test_what_one_process_takes_changes_the_next_answer_of_another(serving: Any) -> None:
    with serving() as (first_process, first), serving() as (_, second):
        assert shown(first) == shown(second) == set(ITEMS)
        for turn, (to, other) in enumerate([(first, second), (second, first), (first, second)]):
            posted = httpx.post(f"{to}/v1/events", json=play(f"e{turn}", f"i{turn}"), timeout=30)
            assert posted.json()["accepted"] == 1
            touched = {f"i{n}" for n in range(turn + 1)}
            assert shown(other) == shown(to) == set(ITEMS) - touched
        put = [new_item("i9", available=False), new_item("new")]
        assert httpx.put(f"{second}/v1/items", json=put, timeout=30).json()["accepted"] == 2
        expected = {*ITEMS, "new"} - {"i0", "i1", "i2", "i9"}
        assert shown(first) == shown(second) == expected

        # Killed without a word, and started again: all that was confirmed is there.
        first_process.send_signal(signal.SIGKILL)
        first_process.wait(30)
        assert shown(second) == expected
        with serving() as (_, third):
            assert shown(third) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux deals connections out")
def test_connections_are_dealt_out_to_all_that_listen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
        first = EachItsOwn.instead_of(taken)
    other = pickle.loads(pickle.dumps(first))
    both, clients = (first, other), []
    for listener in both:
        assert listener.getsockname() == address
        listener.listen()
        listener.setblocking(False)
    for _ in range(64):
        clients.append(socket.create_connection(address))
    accepted = [len(list(all_of(listener))) for listener in both]
    assert sum(accepted) == 64
    assert min(accepted) > 0
    for each in (*both, *clients):
        each.close()


def all_of(listener: socket.socket) -> Iterator[None]:
    """One for each connection that waits."""
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return
        yield


def test_workers_share_a_port_their_events_and_their_figures(serving: Any) -> None:
    with serving("--workers", "2") as (process, url):
        httpx.post(f"{url}/v1/events", json=play("e0", "i0"), timeout=30)
        answers = [shown(url) for _ in range(20)]
        figures = httpx.get(f"{url}/metrics", timeout=30).text
        assert process.poll() is None
    assert all(answer == set(ITEMS) - {"i0"} for answer in answers)
    count = 'nearline_requests_total{endpoint="/v1/users/{user_id}/recommendations"'
    assert f'{count},status="200"}} 20.0' in figures
    assert 'nearline_events_total{status="accepted"} 1.0' in figures
    assert figures.count("nearline_release_info{") == 1


def test_without_keys_a_server_answers_to_names_of_its_machine_alone(serving: Any) -> None:
    with serving() as (_, url):
        foreign = {"host": "evil.example"}
        refused = httpx.delete(f"{url}/v1/users/ann", headers=foreign, timeout=30)
        assert (refused.status_code, refused.json()["code"]) == (421, "foreign_host")
        assert httpx.get(f"{url}/readyz", headers=foreign, timeout=30).status_code == 200
        assert shown(url.replace("127.0.0.1", "localhost")) == set(ITEMS)


def test_a_worker_that_takes_the_place_of_another_needs_the_keys_that_are_gone(
    serving: Any, keyed: Any, eventually: Any
) -> None:
    key = {"authorization": f"Bearer {keyed('read')}"}

    def statuses(headers: dict[str, str]) -> set[int]:
        asked = (httpx.get(f"{url}/v1/release", headers=headers, timeout=30) for _ in range(20))
        return {answer.status_code for answer in asked}

    with serving("--workers", "2") as (process, url):
        file = settings().keys
        away = file.rename(file.with_name("away"))
        os.kill(workers_of(process)[0], signal.SIGKILL)
        eventually(lambda: statuses(key) == {200, 401}, seconds=60)  # the new one knows no key
        assert statuses({}) == {401}
        away.rename(file)
        eventually(lambda: statuses(key) == {200})
        assert statuses({}) == {401}


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The processes that answer; multiprocessing has one more, which tracks what they share."""
    children = psutil.Process(process.pid).children()
    return [child.pid for child in children if "resource_tracker" not in " ".join(child.cmdline())]
