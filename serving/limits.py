"""How often a key may call, counted together by all workers of a machine.

The generic cell rate algorithm (ITU-T I.371, 1996), which is a token bucket kept as one number: the
time at which the bucket would be full again, in seconds of the machine's monotonic clock. It lies
in a small file for each key, which all processes share, with the time at which it was written: a
later one than now is from before the machine was started anew, and the bucket is full.

A request for several lists is let in as any other, and takes the other lists from what is there and
from what comes in next (as Guava's RateLimiter does): so a key may ask for more at once than its
bucket ever holds, and waits for it afterwards.
"""

import fcntl
import logging
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

BURST_S = 2.0
"""A bucket holds what comes in so many seconds, and one request at least."""

_FULL_AT_AND_NOW = struct.Struct("dd")
_ROUNDING_S = 1e-6


class RateLimits:
    """The buckets under a folder, one for each name. Safe from many threads, of any processes."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = folder, clock

    def wait(self, name: str, rate: float) -> float:
        """Take one request from a bucket that gets `rate` of them a second.

        Returns 0, or the seconds until one is there, with nothing taken. A disk that cannot count
        lets everyone in: it must not be what ends the service.
        """
        return self._taken(name, rate, 1, ahead=0)

    def wait_for_more(self, name: str, rate: float, more: int) -> float:
        """Take `more` for a request that was let in.

        Returns 0; or, where others have taken more than is there, the seconds until that has come
        in and a request is there again, with nothing taken.
        """
        missing_s = self._taken(name, rate, more, ahead=more)
        return missing_s + 1 / rate if missing_s else 0.0

    def _taken(self, name: str, rate: float, count: int, *, ahead: int) -> float:
        try:
            file = self._opened(name)
            try:  # closing it lets others at it
                fcntl.flock(file, fcntl.LOCK_EX)
                return _take(file, self._clock(), 1 / rate, count, ahead)
            finally:
                os.close(file)
        except OSError:
            log.exception("requests of %s were not counted", name)
            return 0.0

    def _opened(self, name: str) -> int:
        try:
            return os.open(self._folder / name, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            self._folder.mkdir(parents=True, exist_ok=True)
            return os.open(self._folder / name, os.O_RDWR | os.O_CREAT, 0o600)


def _take(file: int, now: float, each_s: float, count: int, ahead: int) -> float:
    """Take `count`, of which `ahead` need not be there yet."""
    kept, full_at = os.pread(file, _FULL_AT_AND_NOW.size, 0), now
    if len(kept) == _FULL_AT_AND_NOW.size:
        told, written = _FULL_AT_AND_NOW.unpack(kept)
        full_at = max(told, now) if written <= now else now
    full_at += count * each_s
    missing_s = full_at - ahead * each_s - (now + max(BURST_S, each_s) + _ROUNDING_S)
    if missing_s > 0:
        return missing_s
    os.pwrite(file, _FULL_AT_AND_NOW.pack(full_at, now), 0)
    return 0.0
