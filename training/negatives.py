"""Which items a step compares its targets with, where the catalogue is too large for all of them.

Half of them are drawn evenly, half by how often they are asked for: Yang et al. 2020, Mixed
Negative Sampling for Learning Two-tower Neural Networks in Recommendations. One that is drawn with
the chance q in each of n draws counts 1 / (n q), so that on average the sum over those drawn is the
sum over all: the correction of Bengio & Senécal 2008, Adaptive Importance Sampling to Accelerate
Training of a Neural Probabilistic Language Model. What the targets of the step ask for counts once.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nearline.sequence import PAD
from training.dataset import Batch, Interactions
from training.model import Model
from training.teacher import Compared, Loss


def few_compared(
    loss: Callable[..., Tensor],
    model: Model,
    data: Interactions,
    targets: np.ndarray,
    *,
    draws: int,
) -> Loss:
    """The same loss with `draws` items drawn for each step, where the model has touched more.

    `loss` takes `compared`, as `batch_loss` does; 0 draws change nothing.
    """
    if not 0 < draws < int(model.item_tower.touched.sum()):
        return loss
    negatives = Negatives(model, data, targets, draws=draws)

    def drawn(model: Model, data: Interactions, batch: Batch) -> Tensor:
        return loss(model, data, batch, compared=negatives.compared(data, batch))

    return drawn


class Negatives:
    """Draws items for each step: about `draws` of those that a model has touched.

    `targets` are all that is learned.
    """

    def __init__(
        self, model: Model, data: Interactions, targets: np.ndarray, *, draws: int
    ) -> None:
        self.draws = draws
        self.touched = model.item_tower.touched.cpu().nonzero().ravel()
        self.asked = torch.from_numpy(data.items[targets] - 1)
        often = torch.bincount(self.asked, minlength=model.config.items)
        self.chances = (1 / len(self.touched) + often / len(self.asked)) / 2  # (N,), of a draw

    def compared(self, data: Interactions, batch: Batch) -> Compared:
        """The items of a step: what its targets ask for, those drawn, and what it reads besides."""
        asked = torch.from_numpy(data.items[batch.targets] - 1).unique()
        read = torch.from_numpy(batch.inputs.items).unique()
        read = read[read > PAD] - 1
        drawn, times = self._drawn().unique(return_counts=True)
        rows = torch.cat([asked, read, drawn]).unique()
        among = torch.zeros(len(rows))
        among[torch.searchsorted(rows, drawn)] = times / (self.draws * self.chances[drawn])
        among[torch.searchsorted(rows, asked)] = 1
        return Compared(among, rows)

    def _drawn(self) -> Tensor:
        halves = self.draws - self.draws // 2, self.draws // 2
        pools = self.touched, self.asked
        drawn = (p[torch.randint(len(p), (n,))] for p, n in zip(pools, halves, strict=True))
        return torch.cat(list(drawn))
