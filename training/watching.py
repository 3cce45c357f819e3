"""What tells when to stop learning: a figure of events that are not learned."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from training.dataset import Interactions
from training.model import Model
from training.negatives import few_compared
from training.recipe import Learning
from training.teacher import Loss, plain_loss, training_batches

PROGRESS = 0.001
"""The least share by which a pass must better the watched figure: less is not worth its time."""

_SEED = 1
"""Of the items that are drawn to be compared: after each pass the same."""


@dataclass(frozen=True)
class Watch:
    """A figure of the model, asked for after each pass."""

    name: str
    figure: Callable[[Model, Interactions], float]
    rises: bool = False

    def better(self, found: float, best: float | None) -> bool:
        """Whether a figure is progress over the best one so far, by PROGRESS at least."""
        if best is None:
            return True
        gain = found - best if self.rises else best - found
        return gain > PROGRESS * abs(best)


def watched_loss(targets: np.ndarray, learning: Learning) -> Watch | None:
    """The mean loss of targets that are not learned; None without any."""
    if len(targets) == 0:
        return None
    return Watch("loss", lambda model, data: mean_loss(model, data, targets, learning))


@torch.no_grad()
def mean_loss(model: Model, data: Interactions, targets: np.ndarray, learning: Learning) -> float:
    """The mean loss over `targets`, among all items or as many as a step of learning compares.

    0 without any targets.
    """
    draws, total = learning.draws(model.config.items), 0.0
    loss: Loss = few_compared(plain_loss, model.eval(), data, targets, draws=draws)
    if loss is plain_loss:  # among all items, whose vectors are the same for all batches
        loss = partial(plain_loss, vectors=model.item_tower())
    with torch.random.fork_rng(devices=[]):  # the next pass must not depend on what was drawn here
        torch.manual_seed(_SEED)
        for batch in training_batches(model, data, targets, learning.batch_tokens):
            total += loss(model, data, batch).item() * len(batch.targets)
    return total / max(len(targets), 1)
