"""Long-running processes of an installation: started beside us, recorded, and ended together.

Each record is a file under NEARLINE_HOME, so that another command, or the next start after a kill,
can end what was left running.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from json import dumps, loads
from pathlib import Path

import psutil

from nearline.errors import StepFailed
from nearline.settings import settings

_PATIENCE_S = 20


@dataclass(frozen=True)
class Service:
    """A process group that we started: its leader's `pid` and `created`, in seconds since 1970."""

    name: str
    pid: int
    created: float

    def members(self) -> list[psutil.Process]:
        """The group's living processes; none once the system gave the number to somebody else."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            return os.getpgid(process.pid) == self.pid and process.create_time() >= self.created
        except (ProcessLookupError, psutil.NoSuchProcess):
            return False


def start(name: str, command: Sequence[str], *, env: Mapping[str, str]) -> Service:
    """Start a process group of its own, logging to `logs/<name>.log`, and record it.

    Raises StepFailed when the service runs already.
    """
    if any(service.name == name and service.members() for service in recorded()):
        raise StepFailed(f"{name} runs already: end it first with `nearline down`")
    with log_path(name).open("ab") as log:
        process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    service = Service(name, process.pid, psutil.Process(process.pid).create_time())
    _record(name).write_text(dumps(asdict(service)))
    return service


def running(service: Service) -> bool:
    """Whether the service's leader still runs."""
    try:
        leader = psutil.Process(service.pid)
        return leader.create_time() == service.created and leader.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def recorded() -> list[Service]:
    """Every service that was started and not yet ended."""
    return [Service(**loads(path.read_text())) for path in sorted(_folder("run").glob("*.json"))]


def stop_all() -> list[str]:
    """End every recorded service, politely at first; returns the names of those that still ran."""
    return [service.name for service in reversed(recorded()) if stop(service)]


def stop(service: Service) -> bool:
    """End a service and all its processes; returns whether any still ran."""
    members = service.members()
    for kind in (signal.SIGTERM, signal.SIGKILL):
        for process in service.members():
            try:
                process.send_signal(kind)
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(members, timeout=_PATIENCE_S)
    _record(service.name).unlink(missing_ok=True)
    return bool(members)


def log_path(name: str) -> Path:
    """Where a service writes what it prints."""
    return _folder("logs") / f"{name}.log"


def _record(name: str) -> Path:
    return _folder("run") / f"{name}.json"


def _folder(name: str) -> Path:
    folder = settings().home / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
