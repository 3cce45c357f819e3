"""What the benchmarks share: homes and processes of their own, and what those cost."""

import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import psutil
import typer

from nearline.errors import StepFailed
from nearline.windows import Window

END = datetime(2026, 3, 1, tzinfo=UTC)
"""Midnight after the last day of every stream: no benchmark looks at the clock."""

_EVERY_S = 0.2
_MIB = 1 << 20
_STEP = (
    "import sys; from nearline.windows import Window; from pipeline import steps; "
    "getattr(steps, sys.argv[1])(Window.parse(*sys.argv[2:]))"
)


@dataclass(frozen=True)
class Cost:
    """What a process and its descendants took: wall clock, processor time, most memory at once.

    Memory is the proportional set size: pages that processes share count once.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float


@dataclass
class Watch:
    """Samples a process and its descendants until stopped."""

    process: psutil.Process
    peak_mib: float = 0
    _cpu: dict[int, float] = field(default_factory=dict)
    _stop: Event = field(default_factory=Event)

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all that was ever seen, as last seen."""
        return sum(self._cpu.values())

    def sample(self) -> None:
        """Take note of what runs now; a process that ends meanwhile stays as it was."""
        memory = 0
        try:
            for process in [self.process, *self.process.children(recursive=True)]:
                times = process.cpu_times()
                self._cpu[process.pid] = times.user + times.system
                memory += process.memory_full_info().pss
        except psutil.Error:
            return
        self.peak_mib = max(self.peak_mib, memory / _MIB)

    def run(self) -> None:
        """Sample until `stop`."""
        while not self._stop.wait(_EVERY_S):
            self.sample()

    def stop(self) -> None:
        """End `run` after the sample that it may be at."""
        self._stop.set()


def run_step(home: Path, name: str, window: Window, **settings: str) -> Cost:
    """Run one step of pipeline/steps.py in a process of its own, as the scheduler does."""
    command = [sys.executable, "-c", _STEP, name]
    times = window.start.isoformat(), window.end.isoformat()
    return run_command([*command, *times], environment(home, **settings))


def run_nearline(home: Path, *arguments: str, **settings: str) -> Cost:
    """Run the `nearline` command."""
    command = [sys.executable, "-c", "from nearline.cli import main; main()", *arguments]
    return run_command(command, environment(home, **settings))


def run_command(command: list[str], environment: dict[str, str]) -> Cost:
    """What a command takes. Raises StepFailed, with its last words, when it fails."""
    with tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        watch = Watch(psutil.Process(process.pid))
        watcher = Thread(target=watch.run, daemon=True)
        watcher.start()
        code = process.wait()
        seconds = time.perf_counter() - began
        watch.stop()
        watcher.join()
        if code:
            said.seek(0)
            raise StepFailed(f"{command[2:]} ended with {code}:\n{said.read()[-3000:]}")
    return Cost(seconds, watch.cpu_seconds, watch.peak_mib)


def environment(home: Path, **settings: str) -> dict[str, str]:
    """The environment of a step: commerce, the whole machine, data in `home`."""
    own = {"NEARLINE_HOME": str(home), "NEARLINE_DOMAIN": "commerce"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith("NEARLINE_")}
    named = {f"NEARLINE_{name.upper()}": value for name, value in settings.items()}
    root = str(Path(__file__).parents[1])
    return kept | own | named | {"PYTHONPATH": root, "COLUMNS": "120"}


def load_stream(home: Path, *, users: int, items: int, events: int, days: int) -> Cost:
    """Load a synthetic stream of the domain `commerce` that ends at END."""
    sizes = {"users": users, "items": items, "events": events, "days": days}
    options = [text for name, size in sizes.items() for text in (f"--{name}", str(size))]
    return run_nearline(home, "load", "synthetic", *options, "--end", END.isoformat())


def days_before_end(days: int) -> Window:
    """The days that a stream covers."""
    return Window(END - timedelta(days=days), END)


def free_port() -> int:
    """A port of loopback that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def workplace(kept: Path | None) -> Iterator[Path]:
    """A folder that is removed at the end, or the one to keep."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="nearline-") as folder:
        yield Path(folder)


def machine() -> str:
    """The machine in words."""
    memory = psutil.virtual_memory().total / (1 << 30)
    load = os.getloadavg()[0]
    return (
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, "
        f"load {load:.1f}, Python {platform.python_version()}"
    )


def run(main: Callable[..., None]) -> None:
    """Run a benchmark's command."""
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    app()
