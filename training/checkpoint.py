"""A long training's state on disk: one that was killed goes on after its last whole pass."""

import hashlib
import logging
import os
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

log = logging.getLogger(__name__)


class Checkpoint:
    """One file, replaced as a whole. `key` names the training: another one's state is not taken."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key

    def save(self, state: dict[str, Any]) -> None:
        """Keep a state, and that of torch's random numbers."""
        staged = self.path.with_suffix(f".{os.getpid()}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = {"key": self.key, "random": torch.get_rng_state(), "state": state}
        torch.save(kept, staged)
        staged.replace(self.path)

    def load(self) -> dict[str, Any] | None:
        """The state of this training, with its random numbers set; None without one."""
        if not self.path.is_file():
            return None
        try:
            kept = torch.load(self.path, map_location="cpu", weights_only=True)
            key, random, state = kept["key"], kept["random"], kept["state"]
        except (OSError, EOFError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
            log.warning("%s cannot be read (%s): the training begins anew", self.path, error)
            return None
        if key != self.key:
            return None
        torch.set_rng_state(random)
        log.info("going on from %s", self.path)
        found: dict[str, Any] = state
        return found

    def remove(self) -> None:
        """The training is over."""
        self.path.unlink(missing_ok=True)


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
