"""Events posted to workers that are killed again and again: is all that was acknowledged stored?

Several posters send batches of new events and send each again until it is answered; meanwhile
workers are killed without a word, and now and then the whole server, which is started again. In the
end the arrival hours are closed and cleaned as every hour is, and the ids counted.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event as Signal
from threading import Lock
from typing import Annotated, Any

import psutil
import typer

from benchmarks.harness import environment, free_port, machine, run, run_step, workplace
from nearline.console import JsonFlag, print_json, print_table
from nearline.lake import EVENTS, RAW, Lake
from nearline.schema import EVENT_ID, EVENT_SCHEMA, RAW_SCHEMA
from nearline.windows import HOUR, Window, hour_floor
from serving.client import RecommendationClient
from serving.errors import ServiceError

USERS = 20_000
"""So many that nobody is taken for a bot."""

_BATCH = 50
_POSTERS = 4
_PATIENCE_S = 20
_A_LOOK_S = 0.02
_A_SERVER_EVERY = 5
"""Of so many kills one takes the whole server."""


@dataclass
class Found:
    """What was sent, answered for and stored; `tries` are posts that got no answer.

    `raw` are rows as received: an event whose answer was lost is sent again, and may be there once
    for each worker that it came to. `twice` are events that are left twice after cleaning.
    """

    events: int
    acknowledged: int = 0
    stored: int = 0
    lost: int = 0
    twice: int = 0
    raw: int = 0
    tries: int = 0
    workers_killed: int = 0
    servers_killed: int = 0
    seconds: float = 0.0

    @property
    def right(self) -> bool:
        """Whether each event was acknowledged, and is stored once."""
        return self.events == self.acknowledged == self.stored and not (self.lost or self.twice)


@dataclass
class Server:
    """`nearline serve` with some workers, of which any may be killed."""

    home: Path
    port: int
    workers: int
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and return when it answers."""
        code = "from nearline.cli import main; main()"
        command = [sys.executable, "-c", code, "serve", "--port", str(self.port)]
        with (self.home / "serve.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--workers", str(self.workers)],
                env=environment(self.home),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        with RecommendationClient(base_url=self.url, retries=0) as client:
            while not _answers(client):
                if self._process.poll() is not None:
                    raise SystemExit(f"the server ended: see {self.home / 'serve.log'}")
                time.sleep(0.1)

    def kill_worker(self, choice: random.Random) -> bool:
        """Kill one of the workers, where there is one; the server makes up for it."""
        assert self._process is not None
        workers = list(filter(_is_worker, psutil.Process(self._process.pid).children()))
        if workers:
            choice.choice(workers).kill()
        return bool(workers)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End all of it."""
        assert self._process is not None
        if how == signal.SIGKILL:
            os.killpg(self._process.pid, how)
        else:
            self._process.send_signal(how)
        self._process.wait(60)


def _is_worker(child: psutil.Process) -> bool:
    """Whether a child of the server answers, and does not keep track of what others share."""
    try:
        return any("spawn_main" in part for part in child.cmdline())
    except psutil.Error:  # it was killed just now
        return False


def _answers(client: RecommendationClient) -> bool:
    try:
        client.releases()
    except ServiceError:
        return False
    return True


def soak(folder: Path, *, events: int, workers: int, every: int, seed: int) -> Found:
    """Post events to a server that is killed after about `every` of them; what became of them.

    `stored` and what follows from it are left to `count`.
    """
    server, found = Server(folder, free_port(), workers), Found(events)
    server.start()
    began = time.perf_counter()
    with _killing(server, found, every=every, seed=seed):
        _post(server.url, found)
    found.seconds = round(time.perf_counter() - began, 1)
    server.end()
    return found


def _post(url: str, found: Found) -> None:
    """Post all events, again and again until each is answered for; `found` counts them."""
    with RecommendationClient(base_url=url) as client:
        item = {"item_id": "i", "title": "One", "created_ts": "2026-01-01T00:00:00Z"}
        client.put_items(items=[item])
    acknowledged: set[str] = set()
    counting = Lock()

    def post(batches: range) -> None:
        with RecommendationClient(base_url=url, retries=0, timeout_s=_PATIENCE_S) as client:
            for first in batches:
                rows = [_event(n) for n in range(first, min(first + _BATCH, found.events))]
                while not (ids := _acknowledged(client, rows)):
                    with counting:
                        found.tries += 1
                    time.sleep(0.05)
                with counting:
                    acknowledged.update(ids)
                    found.acknowledged = len(acknowledged)

    firsts = range(0, found.events, _BATCH)
    with ThreadPoolExecutor(_POSTERS) as pool:
        list(pool.map(post, [firsts[poster::_POSTERS] for poster in range(_POSTERS)]))


def _event(number: int) -> dict[str, Any]:
    return {
        "event_id": f"e{number}",
        "user_id": f"u{number % USERS}",
        "event_type": "search",
        "event_ts": datetime.now(UTC).isoformat(),
        "query": "shoes",
    }


def _acknowledged(client: RecommendationClient, rows: list[dict[str, Any]]) -> list[str]:
    """The ids that the answer says are kept; none without an answer."""
    try:
        answer = client.send_events(events=rows)
    except ServiceError:
        return []
    if answer.refused:
        raise SystemExit(f"events were refused: {answer.events}")
    return [receipt.event_id for receipt in answer.events if receipt.event_id]


@contextmanager
def _killing(server: Server, found: Found, *, every: int, seed: int) -> Iterator[None]:
    """While this lasts, workers are killed, and now and then the server.

    Kills go by events acknowledged, not by time: a fast machine gets as many as a slow one.
    """
    stop, choice = Signal(), random.Random(seed)

    def kill() -> None:
        due = 0.0
        while not stop.wait(_A_LOOK_S):
            if found.acknowledged < due:
                continue
            due = found.acknowledged + every * choice.uniform(0.5, 1.5)
            if (found.workers_killed + found.servers_killed + 1) % _A_SERVER_EVERY:
                found.workers_killed += server.kill_worker(choice)
            else:
                server.end(signal.SIGKILL)
                found.servers_killed += 1
                server.start()

    with ThreadPoolExecutor(1) as killer:
        killing = killer.submit(kill)
        try:
            yield
        finally:
            stop.set()
        killing.result()


def clean(folder: Path, arrived: Window) -> None:
    """Close the arrival hours, and clean them."""
    for step in ("close_hours", "spark_features"):
        run_step(folder, step, arrived)


def count(folder: Path, arrived: Window, found: Found) -> Found:
    """Count what the lake has of the events that arrived in a window."""
    lake = Lake(str(folder / "lake"))
    # An event lies in the hour in which it happened, which may be the one before.
    happened = Window(arrived.start - HOUR, arrived.end)
    ids = lake.read(EVENTS, happened, schema=EVENT_SCHEMA, columns=[EVENT_ID])[EVENT_ID]
    stored = set(ids.to_pylist())
    found.raw = lake.read(RAW, arrived, schema=RAW_SCHEMA, columns=[EVENT_ID]).num_rows
    found.stored, found.twice = len(stored), len(ids) - len(stored)
    found.lost = sum(f"e{number}" not in stored for number in range(found.events))
    return found


def main(
    events: Annotated[int, typer.Option(min=1, help="Events to post.")] = 200_000,
    workers: Annotated[int, typer.Option(min=1, help="Processes that answer.")] = 2,
    every: Annotated[int, typer.Option(min=1, help="Events between two kills.")] = 5_000,
    seed: Annotated[int, typer.Option(help="Of whom it meets.")] = 17,
    keep: Annotated[Path | None, typer.Option(help="Folder to work in, and keep.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Post events to workers that are killed again and again, and count what is stored.

    Exits with 1 where an event that was acknowledged is not stored, or is stored twice.
    Example: python -m benchmarks.soak --events 200000
    """
    with workplace(keep) as folder:
        began = hour_floor(datetime.now(UTC))
        found = soak(folder, events=events, workers=workers, every=every, seed=seed)
        arrived = Window(began, hour_floor(datetime.now(UTC)) + HOUR)
        clean(folder, arrived)
        count(folder, arrived, found)
    if as_json:
        print_json({"machine": machine(), **asdict(found), "right": found.right})
    else:
        rows = [[name, f"{value:,}"] for name, value in asdict(found).items()]
        print_table(f"{events:,} events, {workers} workers", ["what", "count"], rows)
    if not found.right:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
