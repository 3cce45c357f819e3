"""A real Redis under the real reader, killed and started again while lists are asked for."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import redis

from benchmarks.harness import free_port
from nearline.sequence import microseconds
from nearline.settings import settings
from serving.features import FeatureReader, StoreFailed, StoreLate
from serving.reasons import Reason

ITEMS = tuple(f"i{n}" for n in range(12))
TOUCHED = ["i1", "i2", "i3"]


@contextmanager
def redis_at(port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Redis of its own, which keeps nothing; killed in the end."""
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    database = redis.Redis(port=port)
    for _ in range(200):
        try:
            database.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.05)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def bring_online(now: Any) -> None:
    """Ann's sequence, as materialize brings it."""
    from pipeline.online import feature_store

    times = [microseconds(now - timedelta(hours=back)) for back in (3, 2, 1)]
    row = {
        "user_id": ["ann"],
        "feature_ts": [pd.Timestamp(now)],
        "item_ids": [TOUCHED],
        "event_types": [["play"] * 3],
        "event_ts": [times],
        "values": [[1.0] * 3],
        "taken_item_ids": [TOUCHED],
    }
    feature_store().write_to_online_store("user_sequence", pd.DataFrame(row))


@pytest.fixture
def redis_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Sets the port of the Redis that is the online store."""
    if shutil.which("redis-server") is None and os.environ.get("CI") != "true":
        pytest.skip("no redis-server on the PATH")
    from pipeline.online import feature_store

    def use(port: int) -> None:
        monkeypatch.setenv("NEARLINE_ONLINE_STORE", "redis")
        monkeypatch.setenv("NEARLINE_REDIS_URL", f"redis://127.0.0.1:{port}/0")
        settings.cache_clear()
        feature_store.cache_clear()

    yield use
    feature_store.cache_clear()


@pytest.mark.slow
def test_redis_dies_under_load_and_comes_back(
    world: Any,
    tmp_path: Path,
    redis_url: Callable[[int], None],
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pipeline.online import apply_features

    port = free_port()
    monkeypatch.setenv("NEARLINE_FEATURE_DEADLINE_MS", "500")
    redis_url(port)
    world.catalogue(*({"item_id": item_id} for item_id in ITEMS))
    world.promote(ITEMS)
    statuses: Counter[int] = Counter()
    shown: set[str] = set()
    stop = threading.Event()

    with redis_at(port, tmp_path) as first:
        apply_features()
        bring_online(world.now)
        with world.client(world.service(reader=FeatureReader.open())) as client:

            def ask() -> dict[str, Any]:
                response = client.get("/v1/users/ann/recommendations")
                statuses[response.status_code] += 1
                answer: dict[str, Any] = response.json()
                if answer["source"] == "live":
                    shown.update(item["item_id"] for item in answer["items"])
                return answer

            def storm() -> None:
                while not stop.is_set():
                    ask()

            def answered(more: int) -> None:
                enough = statuses[200] + more
                eventually(lambda: statuses[200] >= enough, seconds=30)

            load = [threading.Thread(target=storm) for _ in range(4)]
            for thread in load:
                thread.start()
            try:
                eventually(lambda: ask()["source"] == "live", seconds=30)
                answered(more=20)
                first.kill()
                failures = {Reason.STORE_FAILED.value, Reason.STORE_LATE.value}
                eventually(lambda: ask()["reason"] in failures, seconds=30)
                answered(more=20)
                with redis_at(port, tmp_path):
                    bring_online(world.now)
                    eventually(lambda: ask()["source"] == "live", seconds=30)
            finally:
                stop.set()
                for thread in load:
                    thread.join()
    assert shown.isdisjoint(TOUCHED)
    assert set(statuses) == {200}


class Wire:
    """A way to a port through which everything goes, until it is `cut`: what is sent is swallowed.

    What was connected before a cut stays silent for ever, as behind a router that forgot it.
    """

    def __init__(self, target: int) -> None:
        self._target, self._dead = target, threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._ends: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._dead.set()

    def mend(self) -> None:
        self._dead = threading.Event()

    def close(self) -> None:
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        try:
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._ends += near, far
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=_pass, args=(*ends, self._dead), daemon=True).start()
        except OSError:
            return


def _pass(source: socket.socket, sink: socket.socket, dead: threading.Event) -> None:
    try:
        while data := source.recv(65_536):
            if not dead.is_set():
                sink.sendall(data)
    except OSError:
        return


def test_a_connection_that_falls_silent_is_given_up_for_another(
    world: Any,
    tmp_path: Path,
    redis_url: Callable[[int], None],
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pipeline.online import apply_features

    monkeypatch.setenv("NEARLINE_FEATURE_DEADLINE_MS", "200")
    monkeypatch.setenv("NEARLINE_REDIS_TIMEOUT_S", "0.3")
    port = free_port()
    with redis_at(port, tmp_path):
        redis_url(port)
        apply_features()
        bring_online(world.now)
        wire = Wire(port)
        redis_url(wire.port)
        reader = FeatureReader.open()
        try:
            reader.warm()
            eventually(lambda: tried(reader) == TOUCHED)
            wire.cut()
            assert tried(reader) is None
            wire.mend()
            eventually(lambda: tried(reader) == TOUCHED)
        finally:
            reader.close()
            wire.close()


def tried(reader: FeatureReader) -> list[str] | None:
    """What Ann touched; None while the store does not tell."""
    try:
        return list(reader.user("ann").history.item_ids)
    except (StoreLate, StoreFailed):
        return None
