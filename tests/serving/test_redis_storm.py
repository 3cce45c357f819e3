"""A real Redis under the real reader, killed and started again while lists are asked for."""

import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
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
from serving.features import FeatureReader
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


@pytest.mark.slow
def test_redis_dies_under_load_and_comes_back(
    world: Any, tmp_path: Path, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on the PATH")
    from pipeline.online import apply_features, feature_store

    port = free_port()
    monkeypatch.setenv("NEARLINE_ONLINE_STORE", "redis")
    monkeypatch.setenv("NEARLINE_REDIS_URL", f"redis://127.0.0.1:{port}/0")
    monkeypatch.setenv("NEARLINE_KEPT_SECONDS", "0")
    monkeypatch.setenv("NEARLINE_FEATURE_DEADLINE_MS", "500")
    settings.cache_clear()
    feature_store.cache_clear()
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
    feature_store.cache_clear()
    assert shown.isdisjoint(TOUCHED)
    assert set(statuses) == {200}
