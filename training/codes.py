"""Vectors that are put together from parts which many items share.

A vector of its own for each item is what grows with a catalogue: a million items of 64 numbers take
a quarter of a gigabyte, and four times that while the model learns. Here an item has a few whole
numbers instead, one for each part of its vector, which name one of CHOICES vectors of that part:
Petrov & Macdonald 2024, RecJPQ: Training Large-Catalogue Sequential Recommenders. They take 256;
more cost nothing that grows, and tell items better apart.
"""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from training.neighbours import Graph, sums

CHOICES = 4096
"""Vectors of each part."""

_SPREAD = 0.02
"""Of the numbers that a vector begins with: little, beside what content says."""

_ROUNDS = 3
"""So many steps away items still draw one another's codes together."""


class Whole(nn.Embedding):
    """A vector of its own for each item."""

    per_item = "weight"
    """What has a row for each item."""

    def __init__(self, items: int, dim: int) -> None:
        super().__init__(items, dim)
        nn.init.normal_(self.weight, std=_SPREAD)

    def all(self) -> Tensor:
        """Every item's vector (N, D)."""
        return self.weight

    def begin(self, new: Tensor, known: Tensor, graph: Graph) -> None:
        """Nothing has to be found out about items of which something is learned from now on."""


class Coded(nn.Module):
    """A number of each item for each of `size` parts of its vector."""

    per_item = "codes"
    codes: Tensor

    def __init__(self, items: int, dim: int, size: int) -> None:
        super().__init__()
        self.parts = nn.Parameter(torch.empty(size, CHOICES, dim // size))
        self.register_buffer("codes", torch.zeros(items, size, dtype=torch.int16))
        nn.init.normal_(self.parts, std=_SPREAD)

    def forward(self, rows: Tensor) -> Tensor:
        """The vectors of some items (R, D)."""
        return self._together(self.codes[rows])

    def all(self) -> Tensor:
        """Every item's vector (N, D)."""
        return self._together(self.codes)

    def _together(self, codes: Tensor) -> Tensor:
        first = CHOICES * torch.arange(codes.shape[1], device=codes.device)
        vectors: Tensor = F.embedding(codes.long() + first, self.parts.flatten(0, 1))
        return vectors.flatten(1)

    def begin(self, new: Tensor, known: Tensor, graph: Graph) -> None:
        """Find codes of items (bool (N,)) of which something is learned from now on.

        At first, by what they go with. Later each begins as near as can be to what its `known`
        neighbours have on average.
        """
        if not known.any():
            self.codes.copy_(torch.from_numpy(dealt(graph, self.codes.shape[1])))
        elif new.any():
            self.codes[new] = self._nearest(new, known, graph)

    @torch.no_grad()
    def _nearest(self, new: Tensor, known: Tensor, graph: Graph) -> Tensor:
        told = torch.cat([self.all(), torch.ones(len(known), 1)], dim=1) * known.unsqueeze(1)
        total = sums(told, graph)[new]
        wanted = total[:, :-1] / total[:, -1:].clamp(min=1e-9)
        parts = wanted.chunk(len(self.parts), dim=1)
        nearest = [torch.cdist(*pair).argmin(dim=1) for pair in zip(parts, self.parts, strict=True)]
        return torch.stack(nearest, dim=1).to(self.codes.dtype)


def own_vectors(items: int, dim: int, codes: int) -> Whole | Coded:
    """What holds the items' own vectors; each has a whole one where it has 0 codes."""
    return Coded(items, dim, codes) if codes else Whole(items, dim)


def dealt(graph: Graph, size: int) -> np.ndarray:
    """Codes int16 (items, size), so that items which go together share some.

    Each is an item's place in an order by chance that neighbours have evened out in some rounds:
    random projections as of Chen et al. 2019, Fast and Accurate Network Embeddings via Very Sparse
    Random Projection (FastRP). Every order deals the items out evenly over its codes.
    """
    matrix, rng = graph.matrix(), np.random.default_rng(size)
    items = matrix.shape[0]
    share = 1 / np.maximum(matrix.sum(axis=1), 1e-9)[:, None]
    values = rng.normal(size=(items, size))
    for _ in range(_ROUNDS):
        values = (values + share * (matrix @ values)) / 2
    places = np.argsort(np.argsort(values, axis=0), axis=0)
    return (places * CHOICES // items).astype(np.int16)
