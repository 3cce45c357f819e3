"""Real processes that share one installation: what one takes in, all answer from."""

import asyncio
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import uvicorn
from fastapi import FastAPI

from nearline.settings import settings
from serving.workers import EachItsOwn, server_config

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
        eventually(lambda: len(listening_of(process)) == 2, seconds=60)
        file = settings().keys
        away = file.rename(file.with_name("away"))
        killed = listening_of(process)[0]
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: len({*listening_of(process)} - {killed}) == 2, seconds=60)
        assert statuses(key) == {200, 401}  # the new one knows no key
        assert statuses({}) == {401}
        away.rename(file)
        eventually(lambda: statuses(key) == {200})
        assert statuses({}) == {401}


def listening_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The workers of a server that answer."""
    children = psutil.Process(process.pid).children()
    return [child.pid for child in children if listens(child)]


def listens(process: psutil.Process) -> bool:
    with suppress(psutil.Error):  # it has just ended
        return bool(process.net_connections())
    return False


def test_a_server_stops_though_a_request_never_ends(
    home: Path, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    monkeypatch.setenv("NEARLINE_CLIENT_TIMEOUT_S", "0.1")
    settings.cache_clear()
    app, asked = FastAPI(), threading.Event()

    @app.get("/")
    async def endless() -> None:
        asked.set()
        await asyncio.Event().wait()

    server = uvicorn.Server(server_config(app))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        with socket.create_connection(address) as waiting:
            waiting.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert asked.wait(20)
            server.should_exit = True
            thread.join(20)
    assert not thread.is_alive()


class DiesInItsStart:
    """An app that ends the process which it is handed to, once its parent has asked for it."""

    def __init__(self, starts: Path) -> None:
        self.starts = starts

    def __reduce__(self) -> tuple[Any, ...]:
        return die, (self.starts,)


def die(starts: Path) -> None:
    with starts.open("a") as told:
        told.write("x")
    time.sleep(2)
    os._exit(1)


def test_a_worker_that_dies_in_its_start_is_replaced_at_once(
    home: Path, tmp_path: Path, eventually: Any
) -> None:
    starts = tmp_path / "starts"
    code = f"""
import pathlib, socket
from serving.workers import Workers, server_config
from tests.serving.test_workers import DiesInItsStart
app = DiesInItsStart(pathlib.Path({str(starts)!r}))
Workers(server_config(app), [socket.create_server(("127.0.0.1", 0))]).run()
"""
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        eventually(lambda: starts.exists() and len(starts.read_text()) > 1, seconds=40)
    finally:
        parent.send_signal(signal.SIGTERM)
        parent.wait(30)
