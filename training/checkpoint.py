"""A long training's state on disk: one that was killed goes on after the last pass kept there."""

import hashlib
import logging
import pickle
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nearline.replacing import replacing

log = logging.getLogger(__name__)

SHARE = 0.05
"""Of a training's time, at most, that goes into keeping it: not every short pass is kept."""

_UNREADABLE = (OSError, EOFError, KeyError, RuntimeError, pickle.UnpicklingError)

RandomState = list[list[torch.Tensor]]
"""Of each process, in the order of their ranks: its processor's state and that of its GPU."""


class Checkpoint:
    """One file, replaced as a whole. `key` names the training: another one's state is not taken."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self._began, self._took = time.monotonic(), 0.0

    def due(self) -> bool:
        """Whether so much was learned since the last writing that another takes SHARE at most."""
        return self._took <= SHARE * (time.monotonic() - self._began)

    def save(self, state: dict[str, Any], random: RandomState) -> None:
        """Keep a state, and the `random_state` of each process that learns."""
        before = time.monotonic()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as staged:
            torch.save({"key": self.key, "random": random, "state": state}, staged)
        self._began = time.monotonic()
        self._took = self._began - before

    def load(self, *, rank: int = 0) -> dict[str, Any] | None:
        """The state of this training, with this process's random numbers set; None without one."""
        if not self.path.is_file():
            return None
        try:
            kept = torch.load(self.path, map_location="cpu", weights_only=True)
            key, random, state = kept["key"], kept["random"], kept["state"]
        except _UNREADABLE as error:
            log.warning("%s cannot be read (%s): the training begins anew", self.path, error)
            return None
        if key != self.key:
            return None
        _go_on(random[rank])
        found: dict[str, Any] = state
        return found

    def remove(self) -> None:
        """The training is over."""
        self.path.unlink(missing_ok=True)


def random_state() -> list[torch.Tensor]:
    """Where this process's random numbers stand: the processor's, and the GPU's that it uses."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state())
    return states


def _go_on(states: list[torch.Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1 and torch.cuda.is_available():
        torch.cuda.set_rng_state(states[1])


def key_of(*parts: str | np.ndarray | Iterable[torch.Tensor]) -> str:
    """A name for what a training begins with: the same bytes, the same name."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode())
        elif isinstance(part, np.ndarray):
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            for tensor in part:
                digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
