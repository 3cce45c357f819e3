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


def distillation(
    states: Tensor, matrix: Tensor, kept: Tensor, items: Tensor, *, temperature: float
) -> Tensor:
    """How far the answers have moved from a parent's: Kullback-Leibler, the mean over the targets.

    Mi et al. 2020, ADER: Adaptively Distilled Exemplar Replay towards Continual Learning for
    Session-based Recommendation (eq. 3, which leaves out the parent's entropy, a constant).
    `states` (P, D) and `matrix` (N, D) are the model's, `kept` and `items` the parent's.
    """
    logits = (states / temperature) @ matrix.T  # (P, N)
    parent = (kept / temperature) @ items.T  # (P, N)
    return F.kl_div(
        logits.log_softmax(dim=1), parent.log_softmax(dim=1), reduction="batchmean", log_target=True
    )
