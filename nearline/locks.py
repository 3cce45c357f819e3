"""One writer at a time on this machine, whoever it is: a task of a DAG or a command.

The scheduler's pools keep its own tasks apart, on any number of machines; these locks keep commands
apart from them, and from one another. The kernel lets go of a lock when its holder dies.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Literal

from nearline.settings import settings

log = logging.getLogger(__name__)

Place = Literal["lake", "online", "wishes", "experiments", "search", "tracking"]
"""What is written: the lake, the online store, the wishes to be forgotten, the closed arms, the
words that are searched, and the tables that trainings are told to.

Who needs several takes them in this order."""


class _Lock:
    """A lock of this process's threads, and by a file of all processes. The holder may enter again.

    `depth` counts how often the holder has entered, `file` is open while it is held.
    """

    def __init__(self) -> None:
        self.threads = RLock()
        self.depth = 0
        self.file = -1


_locks: dict[Place, _Lock] = {
    "lake": _Lock(),
    "online": _Lock(),
    "wishes": _Lock(),
    "experiments": _Lock(),
    "search": _Lock(),
    "tracking": _Lock(),
}


@contextmanager
def alone(place: Place) -> Iterator[None]:
    """Held while nobody else on this machine writes `place`; waits until it can be had."""
    lock = _locks[place]
    with lock.threads:
        if lock.depth == 0:
            lock.file = _taken(settings().home / "locks" / place, f"writes the {place}")
        lock.depth += 1
        try:
            yield
        finally:
            lock.depth -= 1
            if lock.depth == 0:
                fcntl.flock(lock.file, fcntl.LOCK_UN)  # a child may have inherited the open file
                os.close(lock.file)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Held while no other process on this machine works in a folder; waits until it can be had.

    For what has places of its own that `Place` cannot name. It may not be entered twice.
    """
    file = _taken(folder / ".lock", f"works in {folder}")
    try:
        yield
    finally:
        os.close(file)


def _taken(path: Path, what: str) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.warning("waiting: something else %s now", what)
        fcntl.flock(file, fcntl.LOCK_EX)
    return file
