"""When an arm of an experiment is closed: it breaks a bound over some lists in a row."""

import math
from threading import Lock
from typing import NamedTuple

from nearline.experiments import Assigned, Guardrails


class Outcome(NamedTuple):
    """How one list of an arm went. A list that `failed` was answered by the control."""

    seconds: float
    fallback: bool = False
    failed: bool = False


class Breach(NamedTuple):
    """The guardrail that was broken, what was found, and the most that was allowed."""

    guardrail: str
    found: float
    bound: float

    def __str__(self) -> str:
        return f"{self.guardrail} is {self.found:.4g}, and at most {self.bound:.4g} is allowed"


class Guards:
    """What this process has heard of each arm since it was judged last. Safe from many threads."""

    def __init__(self) -> None:
        self._heard: dict[Assigned, list[Outcome]] = {}
        self._lock = Lock()

    def hear(self, arm: Assigned, bounds: Guardrails, outcome: Outcome) -> Breach | None:
        """Take note of a list; every so many lists, what they broke if they did."""
        with self._lock:
            heard = self._heard.setdefault(arm, [])
            heard.append(outcome)
            if len(heard) < bounds.lists:
                return None
            del self._heard[arm]
        return breach(heard, bounds)


def breach(heard: list[Outcome], bounds: Guardrails) -> Breach | None:
    """The first bound that lists break, if any."""
    slowest = sorted(outcome.seconds for outcome in heard)
    found = {
        "error_share": sum(outcome.failed for outcome in heard) / len(heard),
        "fallback_share": sum(outcome.fallback for outcome in heard) / len(heard),
        "p99_ms": 1000 * slowest[math.ceil(0.99 * len(slowest)) - 1],
    }
    for name, value in found.items():
        bound = getattr(bounds, name)
        if bound is not None and value > bound:
            return Breach(name, value, bound)
    return None
