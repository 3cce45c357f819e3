"""What the model is taught by."""

import torch.nn.functional as F
from torch import Tensor


def catalogue_softmax(
    states: Tensor, matrix: Tensor, targets: Tensor, *, temperature: float
) -> Tensor:
    """Softmax cross-entropy over the whole catalogue, of cosines divided by a temperature.

    -log( exp(u·v⁺/τ) / Σ_v exp(u·v/τ) ), the mean over the targets. `states` (P, D) and `matrix`
    (N, D) have length 1, `targets` are rows of `matrix` (P,).
    """
    logits = (states / temperature) @ matrix.T  # (P, N)
    return F.cross_entropy(logits, targets)
