"""What a swap costs those who ask: nothing may fail, nothing may mix, and how long it takes.

Example: python -m benchmarks.swaps run --swaps 20

Two releases of the same items take turns while one process asks `nearline serve` for lists over a
number of connections, each as fast as it is answered. Another process does what an hour does: it
pushes the vectors of all users and items through Feast (SQLite), then moves the pointer.

An answer is mixed when it is none of the lists that its release makes of its own vectors: these
were asked for beforehand, with the user's pushed vector and without. One that had to be made
without the online store, as it did not answer within the deadline that serving comes with, says so
and is counted as late.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import httpx
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.serving import PORT, SERVE, prepare, server

URL = f"http://127.0.0.1:{PORT}"
PHASES = ("outside", "push", "swap")


class Request(NamedTuple):
    """When it began and how long it took (seconds), for whom, and what was answered.

    `late`: without what the online store has, which did not come in time.
    """

    began: float
    seconds: float
    user: str
    status: int
    release: str
    items: tuple[str, ...]
    late: bool = False


class Swap(NamedTuple):
    """When a push began, the pointer moved, and the new release answered; seconds, monotonic."""

    pushing: float
    moved: float
    taken: float


@dataclass(frozen=True)
class Figures:
    """Of one phase: requests, and milliseconds of an answer."""

    phase: str
    requests: int
    failed: int
    mixed: int
    late: int
    p50_ms: float
    p99_ms: float


def phase_of(request: Request, swaps: Iterable[Swap]) -> str:
    """Whether a request was under way while a swap was: from the pointer's move to its effect.

    Or else while a push was.
    """
    end = request.began + request.seconds
    found = "outside"
    for swap in swaps:
        if request.began < swap.taken and end > swap.moved:
            return "swap"
        if request.began < swap.moved and end > swap.pushing:
            found = "push"
    return found


def judge(
    requests: Sequence[Request],
    swaps: Sequence[Swap],
    right: dict[tuple[str, str], set[tuple[str, ...]]],
) -> list[Figures]:
    """Figures of each phase; `right` are the lists that a release makes for a user."""
    by_phase: dict[str, list[Request]] = {phase: [] for phase in PHASES}
    for request in requests:
        by_phase[phase_of(request, swaps)].append(request)
    return [_figures(phase, found, right) for phase, found in by_phase.items()]


def _figures(
    phase: str,
    requests: Sequence[Request],
    right: dict[tuple[str, str], set[tuple[str, ...]]],
) -> Figures:
    good = [request for request in requests if request.status == 200]
    whole = [request for request in good if not request.late]
    mixed = sum(each.items not in right.get((each.user, each.release), ()) for each in whole)
    p50, p99 = 0.0, 0.0
    if len(good) > 1:
        cuts = statistics.quantiles((each.seconds * 1000 for each in good), n=100)
        p50, p99 = cuts[49], cuts[98]
    failed, late = len(requests) - len(good), len(good) - len(whole)
    return Figures(phase, len(requests), failed, mixed, late, round(p50, 2), round(p99, 2))


async def ask(client: httpx.AsyncClient, user: str) -> Request:
    """One list; status 0 where there was no answer."""
    began = time.monotonic()
    try:
        answer = await client.get(f"/v1/users/{user}/recommendations?limit=10")
        told = answer.json() if answer.status_code == 200 else {}
        items = tuple(item["item_id"] for item in told.get("items", ()))
        late = told.get("reason_code") == "store_late"
        found = answer.status_code, told.get("release", ""), items, late
    except httpx.HTTPError:
        found = 0, "", (), False
    return Request(began, time.monotonic() - began, user, *found)


async def ask_until(
    process: "subprocess.Popen[bytes]", users: Sequence[str], connections: int
) -> list[Request]:
    """Ask for users in turn over all connections for as long as a process runs."""
    answers: list[Request] = []

    async def ask_on(first: int) -> None:
        async with httpx.AsyncClient(base_url=URL, timeout=10) as client:
            at = first
            while process.poll() is None:
                answers.append(await ask(client, users[at % len(users)]))
                at += connections

    await asyncio.gather(*(ask_on(first) for first in range(connections)))
    return answers


async def right_lists(
    users: Sequence[str], versions: Sequence[str], vectors: dict[str, np.ndarray]
) -> dict[tuple[str, str], set[tuple[str, ...]]]:
    """What each release makes for each user, with its own vectors online and with the other's."""
    found: dict[tuple[str, str], set[tuple[str, ...]]] = {}
    async with httpx.AsyncClient(base_url=URL, timeout=10) as client:
        for online in versions:
            push(online, users, vectors[online])
            for active in versions:
                promote(active)
                for user in users:
                    answer = await ask(client, user)
                    found.setdefault((user, answer.release), set()).add(answer.items)
    return found


def push(version: str, users: Sequence[str], vectors: np.ndarray) -> None:
    """What the hour does before the pointer moves."""
    from pipeline.online import push_embeddings

    push_embeddings(version, list(users), vectors)


def promote(version: str) -> None:
    """Move the pointer, and wait until the new release answers."""
    from nearline.releases import ReleaseStore

    ReleaseStore.open().promote(version)
    while httpx.get(f"{URL}/readyz").json()["release"] != version:
        time.sleep(0.01)


def second_release() -> tuple[str, str]:
    """The active release, and one whose weights have moved a little; published, not active."""
    import torch

    from nearline.releases import ReleaseStore
    from training.bundle import read_bundle, write_bundle

    store = ReleaseStore.open()
    first = store.active()
    assert first is not None
    release = store.load(first)
    bundle = read_bundle(release)
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in bundle.model.parameters():
            weight.add_(0.1 * weight.std(correction=0) * torch.randn_like(weight))
    with store.stage() as folder:
        write_bundle(folder, bundle)
        return first, store.publish(folder, release.manifest)


def user_vectors(versions: Sequence[str], users: int) -> dict[str, np.ndarray]:
    """Vectors of length 1 to push, float32 (users, dim); those of two releases have no relation."""
    from nearline.bundle import read_matrix
    from nearline.releases import ReleaseStore

    found = {}
    for seed, version in enumerate(versions):
        dim = read_matrix(ReleaseStore.open().load(version).path).shape[1]
        made = np.random.default_rng(seed).normal(size=(users, dim))
        found[version] = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return found


def outcomes() -> dict[str, int]:
    """How users' vectors were come by, as the server counts."""
    start = 'nearline_user_vectors_total{outcome="'
    lines = httpx.get(f"{URL}/metrics").text.splitlines()
    told = (line.removeprefix(start).split('"} ') for line in lines if line.startswith(start))
    return {name: round(float(count)) for name, count in told}


app = typer.Typer(help=__doc__)


@app.command()
def swap(
    users: int, versions: Annotated[list[str], typer.Argument()], swaps: int = 20, pause: float = 2
) -> None:
    """Swap again and again, with pauses (seconds); tells the times as JSON. `run` starts this."""
    names = [f"user-{n}" for n in range(users)]
    vectors = user_vectors(versions, users)
    done = []
    for n in range(swaps):
        version = versions[n % len(versions)]
        pushing = time.monotonic()
        push(version, names, vectors[version])
        moved = time.monotonic()
        promote(version)
        done.append(Swap(pushing, moved, time.monotonic()))
        time.sleep(pause)
    sys.stdout.write(json.dumps(done))


@app.command()
def run(
    items: Annotated[int, typer.Option(help="Items of the catalogue.")] = 10_000,
    users: Annotated[int, typer.Option(help="Users with a sequence and a vector.")] = 500,
    connections: Annotated[int, typer.Option(help="Connections that ask.")] = 8,
    swaps: Annotated[int, typer.Option(help="Swaps.")] = 20,
    pause: Annotated[float, typer.Option(help="Seconds between swaps.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure, in a home of its own that is removed in the end."""
    with TemporaryDirectory(prefix="nearline-bench-") as home:
        os.environ["NEARLINE_HOME"] = home
        os.environ["NEARLINE_KEPT_SECONDS"] = "0"  # lists that are kept are not what is measured
        found, counted = measure(Path(home), items, users, connections, swaps, pause)
    if as_json:
        told = {"phases": [asdict(each) for each in found], "user_vectors": counted}
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    else:
        _show(found, counted, f"{swaps} swaps, {connections} connections, {items:,} items")


def measure(
    home: Path, items: int, users: int, connections: int, swaps: int, pause: float
) -> tuple[list[Figures], dict[str, int]]:
    """Make the world, learn what is right, then ask while another process swaps."""
    prepare(items, users)
    versions = second_release()
    vectors = user_vectors(versions, users)
    names = [f"user-{n}" for n in range(users)]
    serve = [*SERVE, "--port", str(PORT)]
    os.environ["NEARLINE_FEATURE_DEADLINE_MS"] = "5000"  # what is right is never late
    with server(serve, "/readyz"):
        right = asyncio.run(right_lists(names, versions, vectors))
    del os.environ["NEARLINE_FEATURE_DEADLINE_MS"]
    with server(serve, "/readyz"), (home / "swaps").open("w+") as told:
        options = ["--swaps", str(swaps), "--pause", str(pause)]
        command = [sys.executable, "-m", "benchmarks.swaps", "swap", str(users), *versions]
        swapper = subprocess.Popen([*command, *options], stdout=told)
        requests = asyncio.run(ask_until(swapper, names, connections))
        if swapper.returncode:
            raise SystemExit(f"swapping ended with {swapper.returncode}")
        told.seek(0)
        moments = [Swap(*each) for each in json.load(told)]
        return judge(requests, moments, right), outcomes()


def _show(found: Sequence[Figures], counted: dict[str, int], title: str) -> None:
    heads = "phase", "requests", "failed", "mixed", "late", "p50 ms", "p99 ms"
    table = Table(*heads, title=title)
    for figures in found:
        table.add_row(*map(str, asdict(figures).values()))
    Console().print(table)
    rows: list[Any] = [f"{name} {count}" for name, count in sorted(counted.items())]
    Console().print(f"user vectors: {', '.join(rows)}")


if __name__ == "__main__":
    app()
