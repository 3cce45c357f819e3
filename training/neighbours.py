"""Which items go together in what is learned, as a sparse graph that item vectors pass along.

An item that few users touched says little by itself; the items that came just before and after it
say more. So a vector takes in its neighbours', as in one layer of He et al. 2020, LightGCN:
Simplifying and Powering Graph Convolution Network for Recommendation (eq. 3), over items alone.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

from training.dataset import Interactions

REACH = 3
"""Events before a target that go together with it; the nearest counts 1, the next 1/2, and on."""


class Graph(NamedTuple):
    """Items and others that each takes in, its neighbours, as compressed sparse rows.

    The neighbours of item i are `items[starts[i]:starts[i + 1]]` (int32), each as close as
    `closeness` (float32) says. `starts` is int32 (items + 1,).
    """

    starts: Tensor
    items: Tensor
    closeness: Tensor

    @classmethod
    def empty(cls, items: int) -> "Graph":
        """No item has any neighbour."""
        whole = torch.int32
        return cls(torch.zeros(items + 1, dtype=whole), torch.zeros(0, dtype=whole), torch.zeros(0))

    @classmethod
    def of(cls, matrix: sparse.csr_array) -> "Graph":
        """A matrix (items, items) as a graph."""
        starts, items = (part.astype(np.int32) for part in (matrix.indptr, matrix.indices))
        parts = starts, items, matrix.data.astype(np.float32)
        return cls._make(map(torch.from_numpy, parts))

    def matrix(self) -> sparse.csr_array:
        """The graph as a matrix (items, items)."""
        starts, items, closeness = (part.cpu().numpy() for part in self)
        size = len(starts) - 1
        return sparse.csr_array((closeness, items, starts), shape=(size, size))

    def rearranged(self, rows: Tensor) -> "Graph":
        """The same for other items: item i is the old item `rows[i]`, or one with none where -1."""
        old = self.matrix()
        stranger = old.shape[0]
        old.resize((stranger + 1, stranger + 1))
        places = np.where(rows.numpy() < 0, stranger, rows.numpy())
        return Graph.of(old[places][:, places])

    def around(self, rows: Tensor) -> Tensor:
        """The neighbours of some items, int64, one after the other."""
        return self.items[self._entries(rows)].long()

    def part(self, rows: Tensor, columns: Tensor) -> "Graph":
        """Some items' neighbours, by their places in `columns` (ascending)."""
        starts, entries = F.pad(self.starts.diff()[rows].cumsum(0), (1, 0)), self._entries(rows)
        items = torch.searchsorted(columns, self.items[entries].long())
        return Graph(starts.int(), items.int(), self.closeness[entries])

    def _entries(self, rows: Tensor) -> Tensor:
        """Where the neighbours of some items stand."""
        counts = self.starts.diff()[rows].long()
        begins = self.starts[rows].long() - (counts.cumsum(0) - counts)
        entries: Tensor = torch.arange(int(counts.sum()), device=rows.device)
        return entries + begins.repeat_interleave(counts)

    def renewed(self, newer: "Graph", about: np.ndarray) -> "Graph":
        """The same, but for some items (bool), whose neighbours are those that `newer` has.

        Both graphs are the same both ways, and so is what comes of them.
        """
        old, new = self._edges(about, touched=False), newer._edges(about, touched=True)
        return Graph.of((old + new).tocsr())

    def _edges(self, about: np.ndarray, *, touched: bool) -> sparse.csr_array:
        """The edges that touch some items, or all others."""
        edges = self.matrix().tocoo()
        kept = (about[edges.row] | about[edges.col]) == touched
        found = edges.data[kept], (edges.row[kept], edges.col[kept])
        return sparse.csr_array(found, shape=edges.shape)


def neighbours(data: Interactions, targets: np.ndarray, *, items: int, most: int) -> Graph:
    """The graph of what came before each of `targets` (positions), of `items` items.

    It knows of nothing but these targets and the events before them. Closeness is the count of
    times together over the geometric mean of both items' counts, so that what goes with everything
    is close to nothing. Of each item the `most` closest stay, and those to which it is among these.
    """
    together = sparse.csr_array((items, items), dtype=np.float32)
    for distance in range(1, REACH + 1):
        before = data.states[targets] - (distance - 1)
        there = before >= data.begins[targets]
        pairs = data.items[targets[there]] - 1, data.items[before[there]] - 1
        times = np.full(len(pairs[0]), 1 / distance, dtype=np.float32)
        counted = sparse.coo_array((times, pairs), shape=(items, items))
        together = together + (counted + counted.T).tocsr()
    scale = sparse.dia_array(
        (1 / np.sqrt(np.maximum(together.sum(axis=1), 1))[None], [0]), shape=together.shape
    )
    closest = _closest((scale @ together @ scale).tocsr(), most)
    return Graph.of(closest.maximum(closest.T).tocsr())


def _closest(matrix: sparse.csr_array, most: int) -> sparse.csr_array:
    """The `most` largest entries of each row; of equal ones the first."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    places = np.arange(len(order)) - matrix.indptr[rows[order]]
    kept = order[places < most]
    entries = matrix.data[kept], (rows[kept], matrix.indices[kept])
    return sparse.csr_array(entries, shape=matrix.shape)


def spread(vectors: Tensor, graph: Graph) -> Tensor:
    """The neighbours' vectors of each item, added up by closeness; both are (items, dim).

    The graph is the same both ways.
    """
    passed: Tensor = _Spread.apply(vectors, *graph)
    return passed


class _Spread(torch.autograd.Function):
    """The product with a symmetric matrix: gradients come back as vectors went.

    Each item's sum is made by itself, so that a GPU too repeats it to the bit.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda", cast_inputs=torch.float32)
    def forward(context: Any, vectors: Tensor, *graph: Tensor) -> Tensor:
        context.graph = Graph(*graph)
        return sums(vectors, context.graph)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")
    def backward(context: Any, *outer: Tensor) -> tuple[Tensor, None, None, None]:
        return sums(outer[0].contiguous(), context.graph), None, None, None


def sums(vectors: Tensor, graph: Graph) -> Tensor:
    """The vectors (items, dim) of the items that each has in a graph, added up by closeness."""
    return F.embedding_bag(
        graph.items,
        vectors,
        graph.starts,
        mode="sum",
        per_sample_weights=graph.closeness,
        include_last_offset=True,
    )
