"""How long the API takes from its start to its first answer, and in how much memory.

Example: python -m benchmarks.start --items 1000000

A release of the small size, untrained, with its index, and a catalogue as large; `nearline serve`
starts in a process of its own, as do an empty route of the same framework and `feast serve` over
the same online store. Files are in the system's cache. `searches` is when keywords are found too.

With --events the journals hold so many of the last 48 hours, and `nearline serve` starts twice:
while the online store has none of these hours, and when it has all but the running one.
"""

import json
import os
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import pandas as pd
import psutil
import typer

from benchmarks.harness import free_port, machine, run, workplace
from benchmarks.serving import EMPTY, FEAST, SERVE, prepare
from nearline.console import JsonFlag, print_json, print_table
from nearline.errors import StepFailed
from nearline.intake.files import HourFile, HourLock, stamped, unstamped
from nearline.lake import Lake
from nearline.records import Event
from nearline.settings import settings
from nearline.windows import HOUR, Window
from pipeline.online import feature_store

_LOOK_EVERY_S = 0.02
_LONGEST_S = 300
_MIB = 1 << 20

LISTED = "/v1/users/user-1/recommendations"
_HOURS = 48
_USERS, _STRIDE = 50_000, 7919
"""Events of an hour are of many users, in no order; each has as many in the end."""

_TOUCHED = 1_000


@dataclass(frozen=True)
class Start:
    """From a process's begin to its first answer: seconds, its own processor time, memory.

    Memory is the proportional set size then, and the most that was resident until then.
    `searches_s` is None for what searches nothing.
    """

    what: str
    seconds: float
    cpu_seconds: float
    mib: float
    peak_mib: float
    searches_s: float | None = None


def start(what: str, command: Sequence[str], path: str, *, searches: str = "") -> Start:
    """Start a command that answers at a free port, and end it.

    Raises StepFailed when it ends by itself, or does not answer in time.
    """
    port = free_port()
    began = time.perf_counter()
    process = psutil.Popen([*command, "--port", str(port)], stderr=subprocess.DEVNULL)
    try:
        seconds = _until(lambda: _told(port, path) is not None, process, began)
        cpu = sum(process.cpu_times()[:2])
        mib, peak_mib = process.memory_full_info().pss / _MIB, _peak_mib(process.pid)
        found = _until(lambda: _finds(port, searches), process, began) if searches else None
    finally:
        process.terminate()
        process.wait(_LONGEST_S)
    return Start(what, seconds, round(cpu, 2), round(mib), round(peak_mib), found)


def _until(holds: Callable[[], bool], process: psutil.Popen, began: float) -> float:
    name = " ".join(process.args)
    while not holds():
        if process.poll() is not None:
            raise StepFailed(f"{name} ended with {process.returncode}")
        if time.perf_counter() - began > _LONGEST_S:
            raise StepFailed(f"{name} has not answered in {_LONGEST_S} s")
        time.sleep(_LOOK_EVERY_S)
    return round(time.perf_counter() - began, 2)


def _told(port: int, path: str) -> str | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            return str(answer.read().decode())
    except OSError:
        return None


def _finds(port: int, path: str) -> bool:
    answer = _told(port, path)
    return answer is not None and json.loads(answer)["source"] == "search"


def _peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _against_others() -> Iterator[Start]:
    yield start("empty route", EMPTY, "/empty")
    yield start("feast serve", FEAST, "/health")
    yield _nearline("nearline")


def _nearline(what: str) -> Start:
    return start(what, SERVE, LISTED, searches="/v1/search?q=title")


def _accept(events: int) -> Window:
    """Fill the journals of the last hours as a worker does; returns these hours."""
    last = Window.of_hour(datetime.now(UTC))
    hours = Window(last.start - (_HOURS - 1) * HOUR, last.end)
    for hour in hours.hours():
        file = HourFile(settings().intake, hour, "benchmark")
        stamps = (hour + n * HOUR * _HOURS / events for n in range(events // _HOURS))
        file.write([_line(n, stamp) for n, stamp in enumerate(stamps)])
        file.close()
    return hours


def _line(number: int, stamp: datetime) -> bytes:
    row = Event(
        event_id=uuid.uuid4().hex,
        user_id=f"user-{number * _STRIDE % _USERS}",
        item_id=f"item-{number % _TOUCHED}",
        event_type="play",
        event_ts=stamp,
        value=0.9,
    )
    return stamped(unstamped(row.raw(source="api", received_ts=stamp)), stamp)


def _materialize(hours: Window) -> None:
    """Tell that all but the last of these hours are online, as their steps would."""
    full = Window(hours.start, hours.end - HOUR)
    with closing(HourLock(settings().intake)) as lock:
        lock.bar(full.end)
    Lake.open().mark_complete("online/user_sequence", full, rows=0)
    row = {"surface": "all", "feature_ts": full.end, "item_ids": [["item-0"]], "scores": [[1.0]]}
    feature_store().write_to_online_store("trending", pd.DataFrame(row))


def main(
    items: Annotated[int, typer.Option(help="Items of catalogue and release.")] = 1_000_000,
    times: Annotated[int, typer.Option(help="Starts of each.")] = 3,
    events: Annotated[int, typer.Option(help="Events of the last 48 hours.")] = 0,
    keep: Annotated[Path | None, typer.Option(help="Use this home, and leave it.")] = None,
    as_json: JsonFlag = False,
) -> None:
    with workplace(keep) as home:
        os.environ["NEARLINE_HOME"] = str(home)
        if not any(home.iterdir()):
            prepare(items, users=100)
        elif events:
            raise typer.BadParameter("--events needs a home of their own")
        if events:
            hours = _accept(events)
            found = [_nearline("events not online") for _ in range(times)]
            _materialize(hours)
            found += [_nearline("events online") for _ in range(times)]
        else:
            found = [each for _ in range(times) for each in _against_others()]
    if as_json:
        print_json([asdict(each) for each in found])
        return
    columns = ["what", "seconds", "cpu seconds", "MiB", "MiB at most", "searches after s"]
    rows = [list(asdict(each).values()) for each in sorted(found, key=lambda each: each.what)]
    print_table(f"{items:,} items, {events:,} events; {machine()}", columns, rows)


main.__doc__ = __doc__  # the command's help

if __name__ == "__main__":
    run(main)
