"""What answering costs: recommendations over HTTP on loopback, against an empty route.

Example: python -m benchmarks.serving --workers 2

A release of the small size, untrained (its weights cost what trained ones do), a catalogue with
categories, and the users' sequences in Feast's SQLite store. One process asks over a number of
connections, each waiting for its answer; the server is `nearline serve` in a process of its own.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import torch
import typer

from benchmarks.harness import END, machine, run
from nearline.console import JsonFlag, print_json, print_table

PORT = 8977
EVENTS = 50
"""Events of each user: as many as the small model reads."""

_BIN = str(Path(sys.executable).parent)
EMPTY = f"{_BIN}/uvicorn benchmarks.empty:app --log-level error".split()
FEAST = f"{_BIN}/feast -c feature_repo serve --no-access-log --max-requests 0".split()
SERVE = f"{_BIN}/nearline serve".split()
"""What answers: an empty route, Feast's own server, and the API; each knows `--port`."""

_TYPES = ("play", "rating", "comment")
_CATEGORIES = tuple(f"c{n}" for n in range(20))
_WORDS = 50_000

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Call:
    """A request: a post where it has a body."""

    path: str
    body: dict[str, Any] | None = None


@dataclass(frozen=True)
class Figures:
    """Requests a second with all connections busy; milliseconds of an answer at half of that.

    `cpu_ms` is the server's processor time for each request: it tells most on a machine that has
    other work.
    """

    what: str
    rps: float
    cpu_ms: float
    p50_ms: float
    p99_ms: float


def prepare(items: int, users: int, *, ranker: bool = False) -> None:
    """Fill the home of the settings: catalogue, release, online store.

    With a `ranker`, one that learned nothing but costs what others do, and the features it reads.
    """
    from nearline.lake import CATALOGUE, Lake

    rng = np.random.default_rng(17)
    ids = [f"item-{n}" for n in range(items)]
    catalogue = _catalogue(rng, ids)
    Lake.open().write_snapshot(CATALOGUE, catalogue)
    _publish(ids, catalogue, _ranker(rng) if ranker else None)
    _bring_online(rng, ids, users)
    if ranker:
        _bring_features_online(rng, ids, [f"user-{n}" for n in range(users)])


def _catalogue(rng: np.random.Generator, ids: list[str]) -> pa.Table:
    """Items with titles of six words, of which some are in many titles, as words are."""
    from nearline.schema import ITEM_SCHEMA

    words = (rng.zipf(1.2, (len(ids), 5)) - 1) % _WORDS
    categories = rng.integers(0, len(_CATEGORIES), (len(ids), 2)).tolist()
    prices = rng.lognormal(3, 1, len(ids)).round(2).tolist()
    columns = {
        "item_id": ids,
        "title": ["title " + " ".join(f"word{n}" for n in row) for row in words.tolist()],
        "categories": [[_CATEGORIES[at] for at in row] for row in categories],
        "created_ts": [END] * len(ids),
        "available": [True] * len(ids),
        "attributes": [json.dumps({"price": price}) for price in prices],
    }
    missing = {field.name: pa.nulls(len(ids), field.type) for field in ITEM_SCHEMA}
    return pa.table(missing | columns, schema=ITEM_SCHEMA)


def _ranker(rng: np.random.Generator) -> str:
    """Trees over columns that say nothing, as many as a night learns."""
    from nearline.ranking import COLUMNS, RANKED
    from training.ranking.examples import Examples
    from training.ranking.learning import learn

    requests = 200
    rows = rng.normal(size=(requests * RANKED, len(COLUMNS))).astype(np.float32)
    sizes, wanted = np.full(requests, RANKED), rng.integers(0, RANKED, requests)
    return learn(Examples(rows, sizes, wanted, np.arange(requests)), seed=17).model_to_string()


def _publish(ids: list[str], catalogue: pa.Table, ranker: str | None) -> None:
    from nearline.releases import Ranking, ReleaseManifest, ReleaseStore
    from nearline.sequence import Vocabulary
    from nearline.words import LONGEST
    from training.bundle import Bundle, write_bundle
    from training.content import content_ids
    from training.indexing import write_index
    from training.lending import borrow
    from training.model import Model, ModelConfig
    from training.recipe import load_recipe

    torch.manual_seed(17)
    recipe = load_recipe("small")
    words = content_ids(catalogue, buckets=recipe.model.content_buckets)
    shape = ModelConfig(
        items=len(ids), types=len(_TYPES), content_width=LONGEST, **recipe.model.model_dump()
    )
    model = Model(shape, torch.from_numpy(words))
    model.item_tower.touch(np.arange(len(ids)))  # each item has a vector of its own
    borrow(model)
    popularity = np.arange(len(ids), 0, -1, dtype=np.float32)
    vocabulary = Vocabulary(tuple(ids), _TYPES)
    manifest = ReleaseManifest(
        kind="nightly",
        parent=None,
        base=None,
        window_start=END - pd.Timedelta(hours=24),
        window_end=END,
        promoted=True,
        reasons=[],
        metrics={},
        ranking=Ranking(wins=ranker is not None, reason="its cost is measured"),
    )
    store = ReleaseStore.open()
    with store.stage() as folder:
        bundle = Bundle(model, vocabulary, popularity, "small", recipe.learning, ranker)
        write_bundle(folder, bundle)
        write_index(folder, model)
        store.promote(store.publish(folder, manifest))


def _bring_online(rng: np.random.Generator, ids: list[str], users: int) -> None:
    from nearline.sequence import microseconds
    from pipeline.online import apply_features, feature_store

    apply_features()
    last = microseconds(END)
    times = [last - 3_600_000_000 * back for back in range(EVENTS, 0, -1)]
    frame = pd.DataFrame(
        {
            "user_id": [f"user-{n}" for n in range(users)],
            "feature_ts": pd.Timestamp(END),
            "item_ids": [list(rng.choice(ids, EVENTS)) for _ in range(users)],
            "event_types": [["play"] * EVENTS] * users,
            "event_ts": [times] * users,
            "values": [[1.0] * EVENTS] * users,
            "taken_item_ids": [list(rng.choice(ids, EVENTS)) for _ in range(users)],
        }
    )
    feature_store().write_to_online_store("user_sequence", frame)


def _bring_features_online(rng: np.random.Generator, ids: list[str], users: list[str]) -> None:
    """A row of every view that a ranker reads, for each item and user."""
    from nearline.ranking import ITEM_FEATURES, USER_FEATURES
    from pipeline.online import feature_store

    store = feature_store()
    for key, keys, features in (("item_id", ids, ITEM_FEATURES), ("user_id", users, USER_FEATURES)):
        for name in dict.fromkeys(feature.split(":")[0] for feature in features):
            fields = {field.name: str(field.dtype) for field in store.get_feature_view(name).schema}
            columns = {
                field: [_value(rng, field, dtype) for _ in keys]
                for field, dtype in fields.items()
                if field != key
            }
            frame = pd.DataFrame({key: keys, "feature_ts": pd.Timestamp(END), **columns})
            store.write_to_online_store(name, frame)


def _value(rng: np.random.Generator, field: str, dtype: str) -> Any:
    """Something of a feature's type; lists are as long as their readers take them to be."""
    length = 24 if field == "hours_of_day" else 2
    if "String" in dtype:
        found = list(_CATEGORIES[:length])
    elif "Int" in dtype:
        found = rng.integers(0, 100, length).tolist()
    else:
        found = rng.random(length).tolist()
    return found if dtype.startswith("Array") else found[0]


@contextmanager
def server(command: Sequence[str], path: str) -> Iterator[psutil.Process]:
    """A process that answers at PORT, from when it does until it is ended."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while not asyncio.run(_answers(path)):
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
            time.sleep(0.2)
        started = psutil.Process(process.pid)
        _settle(started)
        yield started
    finally:
        process.terminate()
        process.wait(30)


def _settle(process: psutil.Process) -> None:
    """Wait until it has nothing to do: the first worker answers while others still start."""
    used = -1.0
    while (now := _cpu_seconds(process)) - used > 0.05:
        used = now
        time.sleep(0.5)


async def _answers(path: str) -> bool:
    try:
        connection = await asyncio.open_connection("127.0.0.1", PORT)
    except OSError:
        return False
    try:
        return (await _ask(connection, Call(path)))[0] == 200
    except (OSError, asyncio.IncompleteReadError):
        return False
    finally:
        connection[1].close()


async def _ask(connection: Connection, call: Call) -> tuple[int, bytes]:
    """One request on an open connection; its status and what came."""
    reader, writer = connection
    sent = b"" if call.body is None else json.dumps(call.body).encode()
    head = f"{'GET' if call.body is None else 'POST'} {call.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if sent:
        head += f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n"
    writer.write(f"{head}\r\n".encode() + sent)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return int(answer.split(b" ", 2)[1]), await reader.readexactly(length)


async def _told(connection: Connection, call: Call) -> Any:
    """What a request that must succeed answers, from JSON."""
    status, answer = await _ask(connection, call)
    assert status == 200, f"{call.path}: {status} {answer.decode()}"
    return json.loads(answer)


async def _play(calls: Sequence[Call], connections: int, rate: float | None) -> list[float]:
    """Make every call, `connections` at a time, at most `rate` a second; seconds of each."""
    taken: list[float] = []
    began, left = time.perf_counter(), iter(enumerate(calls))

    async def ask_on() -> None:
        connection = await asyncio.open_connection("127.0.0.1", PORT)
        for number, call in left:
            # At a rate, time is counted from when the request was due: waiting counts too.
            due = began + number / rate if rate else time.perf_counter()
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            status, _ = await _ask(connection, call)
            assert status == 200, f"{call.path}: {status}"
            taken.append(time.perf_counter() - due)
        connection[1].close()

    await asyncio.gather(*(ask_on() for _ in range(connections)))
    return taken


def measure(
    what: str,
    calls: Sequence[Call],
    *,
    again: Sequence[Call],
    connections: int,
    process: psutil.Process,
) -> Figures:
    """Throughput over `calls`, then latency over `again` at half of it."""
    rps, cpu_ms, _ = _spent(process, len(calls), _play(calls, connections, None))
    return _figures(what, rps, cpu_ms, asyncio.run(_play(again, connections, rps / 2)))


def measure_events(users: Sequence[int], process: psutil.Process) -> Figures:
    """From the post of an event to a list that heeds it, user after user."""
    return _figures("event posted, then heeded", *_spent(process, len(users), _react(users)))


def _spent(
    process: psutil.Process, count: int, asking: Coroutine[Any, Any, list[float]]
) -> tuple[float, float, list[float]]:
    """Requests a second, the server's milliseconds for each, and what asking gives."""
    began, used = time.perf_counter(), _cpu_seconds(process)
    taken = asyncio.run(asking)
    rps = count / (time.perf_counter() - began)
    return rps, (_cpu_seconds(process) - used) / count * 1000, taken


def _figures(what: str, rps: float, cpu_ms: float, taken: Sequence[float]) -> Figures:
    cuts = statistics.quantiles(taken, n=100)
    p50, p99 = (round(cuts[at] * 1000, 2) for at in (49, 98))
    return Figures(what, round(rps), round(cpu_ms, 2), p50, p99)


async def _react(users: Sequence[int]) -> list[float]:
    """A user touches the first item of the list: seconds until the list is without it.

    One connection posts and another asks, so that with several workers another one may answer.
    """
    posts, asks = [await asyncio.open_connection("127.0.0.1", PORT) for _ in range(2)]
    taken: list[float] = []
    for call, user in zip(_lists(users), users, strict=True):
        item_id = (await _told(asks, call))["items"][0]["item_id"]
        event = {"event_id": f"react-{user}", "user_id": f"user-{user}", "item_id": item_id}
        event |= {"event_type": "play", "value": 1.0, "event_ts": datetime.now(UTC).isoformat()}
        posted = time.perf_counter()
        await _told(posts, Call("/v1/events", event))
        while item_id in {item["item_id"] for item in (await _told(asks, call))["items"]}:
            pass
        taken.append(time.perf_counter() - posted)
    for _, writer in (posts, asks):
        writer.close()
    return taken


def _cpu_seconds(process: psutil.Process) -> float:
    all_of_it = [process, *process.children(recursive=True)]
    return sum(sum(each.cpu_times()[:2]) for each in all_of_it)


def _lists(users: Sequence[int]) -> list[Call]:
    return [Call(f"/v1/users/user-{user}/recommendations?limit=10") for user in users]


def _features(users: Sequence[int]) -> list[Call]:
    """What Feast's own server is asked for: the features that a list is made from."""
    features = [f"user_sequence:{name}" for name in ("item_ids", "event_types", "event_ts")]
    return [
        Call("/get-online-features", {"features": features, "entities": {"user_id": [f"user-{n}"]}})
        for n in users
    ]


def compare(users: int, workers: int, connections: int) -> list[Figures]:
    """The empty route, the features alone from Feast's server, then lookups.

    Lookups of each user once, then of some again and again, and after an event of each.
    """
    rng = np.random.default_rng(5)
    half = users // 2
    uniform = rng.integers(0, users, 2 * users).tolist()
    zipf = ((rng.zipf(1.3, 2 * users) - 1) % users).tolist()
    many = ["--port", str(PORT), "--workers", str(workers)]
    found = []
    with server([*EMPTY, *many], "/empty") as process:
        tell = partial(measure, connections=connections, process=process)
        calls = [Call("/empty")] * (2 * users)
        found.append(tell("empty route", calls, again=calls))
    with server([*FEAST, *many], "/health") as process:
        tell = partial(measure, connections=connections, process=process)
        calls = _features(range(half))
        found.append(
            tell("feast serve, features alone", calls, again=_features(range(half, users)))
        )
    with server([*SERVE, *many], "/readyz") as process:
        tell = partial(measure, connections=connections, process=process)
        cold = _lists(range(half)), _lists(range(half, users))
        found.append(tell("each user once", cold[0], again=cold[1]))
        for what, asked in (("again, uniform", uniform), ("again, Zipf", zipf)):
            calls = _lists(asked)
            asyncio.run(_play(calls, connections, None))
            found.append(tell(what, calls, again=calls))
        found.append(measure_events(range(half), process))
    return found


def main(
    items: Annotated[int, typer.Option(help="Items of the catalogue.")] = 10_000,
    users: Annotated[int, typer.Option(help="Users with a sequence.")] = 4_000,
    workers: Annotated[int, typer.Option(help="Processes that answer.")] = 1,
    connections: Annotated[int, typer.Option(help="Connections that ask.")] = 8,
    ranker: Annotated[
        bool, typer.Option("--ranker", help="Order candidates by a ranker, on Feast's features.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    with TemporaryDirectory(prefix="nearline-bench-") as home:
        os.environ["NEARLINE_HOME"] = home
        # Both a deadline that a busy machine misses and what fails then are not what is measured.
        os.environ["NEARLINE_FEATURE_DEADLINE_MS"] = "5000"
        prepare(items, users, ranker=ranker)
        found = compare(users, workers, connections)
    if as_json:
        print_json([asdict(figures) for figures in found])
        return
    title = f"{items:,} items, {users:,} users, {workers} workers; {machine()}"
    rows = [list(asdict(figures).values()) for figures in found]
    print_table(title, ["what", "requests/s", "cpu ms", "p50 ms", "p99 ms"], rows)


main.__doc__ = __doc__  # the command's help

if __name__ == "__main__":
    run(main)
