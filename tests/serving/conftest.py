"""A small world to serve: releases made by hand, a catalogue, a store and a journal that obey."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from onnx import TensorProto, helper, numpy_helper

from nearline import bundle
from nearline.alike import Alike
from nearline.domains import load_domain
from nearline.given import GivenVectors
from nearline.intake import (
    Accepted,
    Follower,
    ImpressionLog,
    ItemJournal,
    Journal,
    accepted_events,
    put_rows,
)
from nearline.lake import CATALOGUE, Lake
from nearline.lenders import Lenders
from nearline.ranking import ITEM_FEATURES, USER_FEATURES
from nearline.records import Item
from nearline.releases import Ranking, ReleaseManifest, ReleaseStore
from nearline.schema import ITEM_SCHEMA
from nearline.sequence import GAP_BUCKETS, Vocabulary
from nearline.settings import settings
from serving.api import create_app
from serving.features import FeatureReader
from serving.following import CatalogueFollower
from serving.keys import KeyFile, Role
from serving.service import Service
from serving.workers import server_config

NOW = datetime(2026, 1, 2, 12, 30, tzinfo=UTC)
HOUR_END = datetime(2026, 1, 2, 12, tzinfo=UTC)
TYPES = ("play", "rating", "comment")
DIM = 8
LENGTH = 5


def _rows_of_length_one(matrix: np.ndarray) -> np.ndarray:
    return (matrix / np.linalg.norm(matrix, axis=-1, keepdims=True)).astype(np.float32)


@dataclass
class TinyModel:
    """user = normalised sum over the events of item row + type row + gap row; row 0 is zero."""

    items: np.ndarray
    types: np.ndarray
    gaps: np.ndarray

    @classmethod
    def make(cls, item_count: int, seed: int) -> "TinyModel":
        rng = np.random.default_rng(seed)
        matrix = _rows_of_length_one(rng.normal(size=(item_count, DIM)))
        others = [rng.normal(size=(n, DIM)) * 0.1 for n in (len(TYPES), GAP_BUCKETS)]
        return cls(*(np.vstack([np.zeros(DIM), t]).astype(np.float32) for t in (matrix, *others)))

    def encode(
        self, items: np.ndarray, types: np.ndarray, gaps: np.ndarray, *_: np.ndarray
    ) -> np.ndarray:
        summed = (self.items[items] + self.types[types] + self.gaps[gaps]).sum(axis=-2)
        return _rows_of_length_one(summed)

    def write_onnx(self, path: Path) -> None:
        names = ("types", "gaps")
        nodes = [
            helper.make_node("Gather", [f"{n}_table", n], [f"{n}_rows"], axis=0) for n in names
        ] + [
            helper.make_node("Sum", ["items", *(f"{n}_rows" for n in names)], ["rows"]),
            helper.make_node("ReduceSum", ["rows", "axis"], ["summed"], keepdims=0),
            helper.make_node("LpNormalization", ["summed"], ["user"], axis=-1, p=2),
        ]
        tables = [
            numpy_helper.from_array(getattr(self, name), f"{name}_table") for name in names
        ] + [numpy_helper.from_array(np.array([1], dtype=np.int64), "axis")]
        shape = ["batch", "length"]
        inputs = [helper.make_tensor_value_info("items", TensorProto.FLOAT, [*shape, DIM])]
        inputs += [helper.make_tensor_value_info(n, TensorProto.INT64, shape) for n in names]
        output = helper.make_tensor_value_info("user", TensorProto.FLOAT, ["batch", DIM])
        graph = helper.make_graph(nodes, "tiny", inputs, [output], tables)
        opsets = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


@dataclass
class FakeStore:
    """The part of Feast's store that is read, with rows put there by the test."""

    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    trending: tuple[list[str], list[float], datetime] | None = None
    neighbours: dict[str, tuple[list[str], list[float]]] = field(default_factory=dict)
    ranking: dict[str, dict[str, Any]] = field(default_factory=dict)
    delay_s: float = 0.0
    error: Exception | None = None
    ranking_delay_s: float = 0.0
    ranking_error: Exception | None = None
    asked: list[tuple[list[str], list[dict[str, str]]]] = field(default_factory=list)

    def put_sequence(
        self,
        user_id: str,
        events: Sequence[tuple[str, str, datetime]],
        *,
        taken: Sequence[str] = (),
    ) -> None:
        items, types, times = zip(*events, strict=True)
        micros = [round(ts.timestamp() * 1e6) for ts in times]
        row = {"item_ids": list(items), "event_types": list(types), "event_ts": micros}
        row["taken_item_ids"] = list(taken)
        for name, value in row.items():
            self.users.setdefault(user_id, {})[f"user_sequence__{name}"] = value
        self.users[user_id]["user_sequence__item_ids__ts"] = int(HOUR_END.timestamp())

    def put_vector(self, user_id: str, release: str, vector: np.ndarray, ts: datetime) -> None:
        row = self.users.setdefault(user_id, {})
        row["user_embedding__release"] = release
        row["user_embedding__embedding"] = vector.tolist()
        row["user_embedding__release__ts"] = int(ts.timestamp())

    def read(self, features: list[str], keys: list[dict[str, str]]) -> dict[str, list[Any]]:
        self.asked.append((features, keys))
        ranks = any(name in (*USER_FEATURES, *ITEM_FEATURES) for name in features)
        time.sleep(self.delay_s + self.ranking_delay_s * ranks)
        error = self.error or (self.ranking_error if ranks else None)
        if error:
            raise error
        names = [name.replace(":", "__") for name in features]
        times = {f"{name}__ts": 0 for name in names}
        rows = [dict.fromkeys(names) | times | self._row(key) for key in keys]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _row(self, key: dict[str, str]) -> dict[str, Any]:
        if "user_id" in key:
            return self.users.get(key["user_id"], {})
        if "item_id" in key:
            ids, scores = self.neighbours.get(key["item_id"], (None, None))
            near = {
                "item_neighbours__neighbour_ids": ids,
                "item_neighbours__scores": scores,
                "item_neighbours__scores__ts": int(HOUR_END.timestamp()) if ids else 0,
            }
            return near | self.ranking.get(key["item_id"], {})
        if not self.trending:
            return {}
        items, scores, ts = self.trending
        row = {"trending__item_ids": items, "trending__scores": scores}
        return row | {"trending__item_ids__ts": int(ts.timestamp())}

    def list_feature_views(self) -> list[Any]:
        fields = [SimpleNamespace(name=name) for name in ("events_24h", "last_event_ts")]
        return [
            SimpleNamespace(name="user_activity", entities=["user"], features=fields),
            SimpleNamespace(name="user_sequence", entities=["user"], features=fields),
            SimpleNamespace(name="item_popularity", entities=["item"], features=fields),
        ]

    def get_feature_view(self, name: str) -> Any:
        return SimpleNamespace(ttl=timedelta(days=8))


class World:
    """One installation: releases, catalogue, online store, and the service over them."""

    def __init__(self) -> None:
        self.releases = ReleaseStore.open()
        self.lake = Lake.open()
        self.store = FakeStore()
        self.models: dict[str, TinyModel] = {}
        self.now = NOW

    def publish(
        self,
        item_ids: Sequence[str],
        *,
        seed: int = 1,
        until: datetime = HOUR_END,
        parent: str | None = None,
        refused: str = "",
        ranker: str | None = None,
        ranking: Ranking | None = None,
        words: np.ndarray | None = None,
        lending: int | None = None,
        alike: Alike | None = None,
        given: GivenVectors | None = None,
    ) -> str:
        """Publish a release by hand, an hourly one with a `parent`, and return its version.

        `lending` are the items of its table of who lends: all of them, or none for no table.
        """
        model = TinyModel.make(len(item_ids), seed)
        manifest = ReleaseManifest(
            kind="hourly" if parent else "nightly",
            parent=parent,
            base=parent,
            window_start=until - timedelta(hours=24),
            window_end=until,
            promoted=not refused,
            reasons=[refused] if refused else [],
            metrics={"ndcg": 0.1},
            ranking=ranking,
        )
        with self.releases.stage() as folder:
            bundle.write_vocabulary(folder, Vocabulary(tuple(item_ids), TYPES))
            np.save(folder / bundle.ITEM_MATRIX, model.items[1:])
            np.save(folder / bundle.ITEM_NORMS, np.ones(len(item_ids), dtype=np.float32))
            popularity = np.arange(len(item_ids), 0, -1, dtype=np.float32)
            np.save(folder / bundle.POPULARITY, popularity)
            model.write_onnx(folder / bundle.ENCODER)
            if words is not None:
                np.save(folder / bundle.WORD_VECTORS, words)
                lending = len(item_ids) if lending is None else lending
            if lending:
                nobody = np.zeros((lending, 1), dtype=np.int64)
                lenders = Lenders.of(nobody, nobody[:, 0] > 0, buckets=100, share=0.5)
                lenders.save(folder / bundle.LENDERS)
            if alike is not None:
                alike.save(folder)
            if given is not None:
                given.save(folder)
            if ranker is not None:
                (folder / bundle.RANKER).write_text(ranker)
            (folder / bundle.CONFIG).write_text(json.dumps({"length": LENGTH}))
            version = self.releases.publish(folder, manifest)
        self.models[version] = model
        return version

    def promote(self, item_ids: Sequence[str], **how: Any) -> str:
        """Publish a release and make it the active one."""
        version = self.publish(item_ids, **how)
        self.releases.promote(version)
        return version

    def catalogue(self, *items: dict[str, Any]) -> None:
        """Write the catalogue snapshot."""
        import pyarrow as pa

        rows = [
            Item(**({"title": i["item_id"].upper(), "created_ts": NOW} | i)).row() for i in items
        ]
        self.lake.write_snapshot(CATALOGUE, pa.Table.from_pylist(rows, schema=ITEM_SCHEMA))

    def event(self, event_id: str, item_id: str, **changes: Any) -> dict[str, Any]:
        """An event as a page of the site would post it."""
        base = {
            "event_id": event_id,
            "user_id": "ann",
            "item_id": item_id,
            "event_type": "play",
            "event_ts": (self.now - timedelta(seconds=5)).isoformat(),
            "value": 1.0,
        }
        return base | changes

    def journal(self) -> Journal:
        """The journal on disk, with this world's clock."""
        config = settings()
        domain = load_domain(config.domain)
        return Journal(config.intake, domain, late_hours=48, clock=lambda: self.now)

    def followed(self) -> CatalogueFollower:
        """The catalogue as a worker follows it."""
        return CatalogueFollower(self.lake, Follower(settings().intake / "items", put_rows))

    def accepted(self) -> list[Accepted]:
        """The events that the journals hold."""
        since = self.now - timedelta(hours=1)
        rows = Follower(settings().intake, accepted_events, since=since).poll(self.now)
        return [event for _, event in rows]

    def service(self, **how: Any) -> Service:
        """A service that reads the fake store."""
        how.setdefault("journal", self.journal())
        clock = {"clock": lambda: self.now}
        how.setdefault("items", ItemJournal(settings().intake / "items", **clock))
        how.setdefault("impressions", ImpressionLog(settings().intake / "impressions", **clock))
        deadline_ms = settings().feature_deadline_ms
        how.setdefault("reader", FeatureReader(lambda: self.store, deadline_ms=deadline_ms))
        return Service.open(**how)

    @contextmanager
    def client(self, service: Service | None = None) -> Iterator[TestClient]:
        """A running app, and a plain HTTP client for it."""
        with TestClient(self.app(service), raise_server_exceptions=False) as client:
            yield client

    def app(self, service: Service | None = None) -> FastAPI:
        """The app of this world, whose clock is `now`."""
        return create_app(service=service or self.service(), clock=lambda: self.now)


@pytest.fixture
def world(home: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """An empty installation: no busy machine misses its deadline, and no list is kept."""
    monkeypatch.setenv("NEARLINE_FEATURE_DEADLINE_MS", "10000")
    monkeypatch.setenv("NEARLINE_KEPT_SECONDS", "0")
    settings.cache_clear()
    return World()


@pytest.fixture
def keyed(home: Path) -> Callable[..., str]:
    """Makes a key of a role, and gives it as a caller holds it."""

    def make(role: str, *, name: str = "shop", rate: float | None = None) -> str:
        return KeyFile.open().add(name=name, role=Role(role), rate=rate, now=NOW)[1]

    return make


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Waits until something is true, and fails when it does not come true in ten seconds."""

    def wait(holds: Callable[[], Any], *, seconds: float = 10) -> None:
        until = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < until, "it never came true"
            time.sleep(0.02)

    return wait


@pytest.fixture
def listening(eventually: Callable[..., None]) -> Callable[..., AbstractContextManager[int]]:
    """Serves an app on loopback as long as a `with` lasts, and gives the port."""

    @contextmanager
    def serve(app: FastAPI, **how: Any) -> Iterator[int]:
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(server_config(app, **how))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        eventually(lambda: server.started)
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()

    return serve


@pytest.fixture
def serving(world: World, tmp_path: Path, eventually: Callable[..., None]) -> Callable[..., Any]:
    """Starts `nearline serve` with twelve items; gives its process and address when it is ready."""
    items = [f"i{n}" for n in range(12)]
    world.catalogue(*({"item_id": i} for i in items))
    world.promote(items)

    @contextmanager
    def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
        log = tmp_path / f"serve-{len(list(tmp_path.glob('serve-*')))}.log"
        code = "from nearline.cli import main; main()"
        command = [sys.executable, "-c", code, "serve", "--port", "0", *arguments]
        with log.open("w") as out:
            process = subprocess.Popen(command, stderr=out, env=os.environ | {"COLUMNS": "200"})
        try:
            eventually(lambda: "http://127.0.0.1:" in log.read_text(), seconds=60)
            url = next(word for word in log.read_text().split() if word.startswith("http://"))
            eventually(lambda: _status(f"{url}/readyz") == 200, seconds=60)
            yield process, url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)

    return started


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.TransportError:
        return 0
