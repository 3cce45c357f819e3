"""What the model is taught by."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK_SCORES = 4_000_000
"""Scores that exist at a time: few enough to stay near the processor, whatever the catalogue."""
_CHUNK_SCORES_ON_GPU = 128_000_000
"""Enough to keep a GPU busy."""

_FAST_ON_CPU = ("amx_bf16", "avx512_bf16", "bf16")


def catalogue_softmax(
    states: Tensor,
    matrix: Tensor,
    targets: Tensor,
    *,
    temperature: float,
    precision: torch.dtype = torch.float32,
) -> Tensor:
    """Softmax cross-entropy over the whole catalogue, of cosines divided by a temperature.

    -log( exp(u·v⁺/τ) / Σ_v exp(u·v/τ) ), the mean over the targets. `states` (P, D) and `matrix`
    (N, D) have length 1, `targets` are rows of `matrix` (P,). The scores of items not wanted may
    be of a lower `precision`; sums are not.
    """
    loss: Tensor = _Softmax.apply(states / temperature, matrix, targets, precision)
    return loss


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


class _Softmax(torch.autograd.Function):
    """Loss and gradients in one go over a chunk of targets after another.

    All scores at once, P x N, would be what fills the memory and what takes the time. Cosines are
    bounded, so nothing has to be subtracted before exp().
    """

    @staticmethod
    def forward(
        context: Any, states: Tensor, matrix: Tensor, targets: Tensor, precision: torch.dtype
    ) -> Tensor:
        learns = any(context.needs_input_grad)
        low = matrix.to(precision)
        total = states.new_zeros(())
        to_states, to_matrix = torch.empty_like(states), torch.zeros_like(matrix)
        most = _CHUNK_SCORES_ON_GPU if matrix.is_cuda else _CHUNK_SCORES
        size = max(most // len(matrix), 1)
        for start in range(0, len(states), size):
            chunk = slice(start, start + size)
            u, wanted = states[chunk], matrix[targets[chunk]]
            e = (u.to(precision) @ low.T).exp_()  # (chunk, N)
            z = e.sum(dim=1, keepdim=True).float()
            total += (z.log().squeeze(1) - (u * wanted).sum(dim=1)).sum()
            if learns:
                to_states[chunk] = (e @ low).float() / z - wanted
                to_matrix += e.T @ (u / z).to(precision)
        if learns:
            to_matrix.index_add_(0, targets, states, alpha=-1)
            context.save_for_backward(to_states / len(states), to_matrix / len(states))
        return total / len(states)

    @staticmethod
    def backward(context: Any, *outer: Tensor) -> tuple[Tensor, Tensor, None, None]:
        to_states, to_matrix = context.saved_tensors
        return outer[0] * to_states, outer[0] * to_matrix, None, None


def fast_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it faster than float32."""
    if device.type == "cpu":
        can = torch.cpu.get_capabilities()
        fast = any(can.get(name, False) for name in _FAST_ON_CPU)
    else:
        fast = torch.cuda.is_bf16_supported()
    return torch.bfloat16 if fast else torch.float32
