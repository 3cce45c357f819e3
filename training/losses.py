"""What the model is taught by."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

_CHUNK_SCORES = 4_000_000
"""Scores that exist at a time: few enough to stay near the processor, up to some 30,000 items."""
_CHUNK_SCORES_ON_GPU = 128_000_000
"""Enough to keep a GPU busy."""

_LEAST_CHUNK = 128
"""Targets: a chunk passes over the whole matrix, and the scores of so few take no more than it."""

_FAST_ON_CPU = ("amx_bf16", "avx512_bf16", "bf16")


class Answers(NamedTuple):
    """What another model answers to the same targets, over the same catalogue.

    Its scores are `states` (P, E) times `matrix` (N, E), already divided by its temperature;
    `weights` (P,) say how much each answer counts beside what happened, which counts 1.
    """

    states: Tensor
    matrix: Tensor
    weights: Tensor

    def part(self, chunk: slice) -> "Answers":
        """Those of some targets."""
        return Answers(self.states[chunk], self.matrix, self.weights[chunk])

    def chances(self, among: Tensor) -> Tensor:
        """Each item's chance times the answer's weight (P, N), in the precision of `among`."""
        precision = among.dtype
        q = (self.states.to(precision) @ self.matrix.to(precision).T).exp_().mul_(among)
        whole = q.sum(dim=1, keepdim=True, dtype=torch.float32)
        return q.mul_((self.weights.unsqueeze(1) / whole).to(precision))


def catalogue_softmax(
    states: Tensor,
    matrix: Tensor,
    targets: Tensor,
    *,
    temperature: float,
    precision: torch.dtype = torch.float32,
    among: Tensor | None = None,
    answers: Answers | None = None,
) -> Tensor:
    """Softmax cross-entropy over the whole catalogue, of cosines divided by a temperature.

    -log( exp(u·v⁺/τ) / Σ_v exp(u·v/τ) ), the mean over the targets. `states` (P, D) and `matrix`
    (N, D) have length 1, `targets` are rows of `matrix` (P,). `among` (N,) says how often each item
    is in the sum: all once without it, some where it is bool. The scores of items not wanted, and
    what they add to gradients, may be of a lower `precision`; the sum of chances is not.

    With `answers`, each target adds -w Σ_v q(v) log p(v), where q are the other model's chances and
    w is the answer's weight: Hinton et al. 2015, Distilling the Knowledge in a Neural Network; Mi
    et al. 2020, ADER: Adaptively Distilled Exemplar Replay towards Continual Learning for
    Session-based Recommendation (eq. 3).
    """
    there = matrix.new_ones(len(matrix), dtype=precision) if among is None else among.to(precision)
    loss: Tensor = _Softmax.apply(states / temperature, matrix, targets, there, answers)
    return loss


class _Softmax(torch.autograd.Function):
    """Loss and gradients in one go over a chunk of targets after another.

    All scores at once, P x N, would be what fills the memory and what takes the time. Cosines are
    bounded, so nothing has to be subtracted before exp().
    """

    @staticmethod
    def forward(
        context: Any,
        states: Tensor,
        matrix: Tensor,
        targets: Tensor,
        among: Tensor,
        answers: Answers | None,
    ) -> Tensor:
        learns, precision = any(context.needs_input_grad), among.dtype
        low = matrix.to(precision)
        total = states.new_zeros(())
        sums = (each if learns else each[:0] for each in (states, matrix))
        to_states, to_matrix = (torch.zeros_like(each) for each in sums)
        most = _CHUNK_SCORES_ON_GPU if matrix.is_cuda else _CHUNK_SCORES
        size = max(most // len(matrix), _LEAST_CHUNK)
        for start in range(0, len(states), size):
            chunk = slice(start, start + size)
            u, wanted = states[chunk], matrix[targets[chunk]]
            mass = states.new_ones(len(u), 1)  # of all that is asked for; `wanted` is its sum
            if answers is not None:
                q = answers.part(chunk).chances(among)  # (chunk, N)
                mass = mass + answers.weights[chunk].unsqueeze(1)
                wanted = wanted + (q @ low).float()
                if learns:
                    to_matrix -= q.T @ u.to(precision)
            e = (u.to(precision) @ low.T).exp_().mul_(among)  # (chunk, N)
            z = e.sum(dim=1, keepdim=True, dtype=torch.float32)
            total += (mass * z.log()).sum() - (u * wanted).sum()
            if learns:
                to_states[chunk] = mass * (e @ low).float() / z - wanted
                to_matrix += e.T @ (mass * u / z).to(precision)
        if learns:
            to_matrix.index_add_(0, targets, states, alpha=-1)
            context.save_for_backward(to_states / len(states), to_matrix / len(states))
        return total / len(states)

    @staticmethod
    def backward(context: Any, *outer: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        to_states, to_matrix = context.saved_tensors
        return outer[0] * to_states, outer[0] * to_matrix, None, None, None


def fast_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it faster than float32."""
    if device.type == "cpu":
        can = torch.cpu.get_capabilities()
        fast = any(can.get(name, False) for name in _FAST_ON_CPU)
    else:
        fast = torch.cuda.is_bf16_supported()
    return torch.bfloat16 if fast else torch.float32
