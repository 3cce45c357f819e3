"""How long the API takes from its start to its first answer, and in how much memory.

Example: python -m benchmarks.start --items 1000000

A release of the small size, untrained, with its index, and a catalogue as large; `nearline serve`
starts in a process of its own, as do an empty route of the same framework and `feast serve` over
the same online store. Files are in the system's cache. `searches` is when keywords are found too.
"""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import psutil
import typer

from benchmarks.harness import free_port, machine, run, workplace
from benchmarks.serving import EMPTY, FEAST, SERVE, prepare
from nearline.console import JsonFlag, print_json, print_table
from nearline.errors import StepFailed

_LOOK_EVERY_S = 0.02
_LONGEST_S = 300
_MIB = 1 << 20


@dataclass(frozen=True)
class Start:
    """From a process's begin to its first answer: seconds, its own processor time, memory.

    Memory is the proportional set size then. `searches_s` is None for what searches nothing.
    """

    what: str
    seconds: float
    cpu_seconds: float
    mib: float
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
        mib = process.memory_full_info().pss / _MIB
        found = _until(lambda: _finds(port, searches), process, began) if searches else None
    finally:
        process.terminate()
        process.wait(30)
    return Start(what, seconds, round(cpu, 2), round(mib), found)


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


def main(
    items: Annotated[int, typer.Option(help="Items of catalogue and release.")] = 1_000_000,
    times: Annotated[int, typer.Option(help="Starts of each.")] = 3,
    keep: Annotated[Path | None, typer.Option(help="Use this home, and leave it.")] = None,
    as_json: JsonFlag = False,
) -> None:
    with workplace(keep) as home:
        os.environ["NEARLINE_HOME"] = str(home)
        if not any(home.iterdir()):
            prepare(items, users=100)
        listed = "/v1/users/user-1/recommendations"
        found = [
            each
            for _ in range(times)
            for each in (
                start("empty route", EMPTY, "/empty"),
                start("feast serve", FEAST, "/health"),
                start("nearline", SERVE, listed, searches="/v1/search?q=title"),
            )
        ]
    if as_json:
        print_json([asdict(each) for each in found])
        return
    columns = ["what", "seconds", "cpu seconds", "MiB", "searches after s"]
    rows = [list(asdict(each).values()) for each in sorted(found, key=lambda each: each.what)]
    print_table(f"{items:,} items; {machine()}", columns, rows)


main.__doc__ = __doc__  # the command's help

if __name__ == "__main__":
    run(main)
