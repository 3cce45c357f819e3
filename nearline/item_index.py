"""The index of a release with many items: finds the nearest without scoring every one.

An inverted file: items lie in lists around centres, their numbers in eight bits; only the lists
nearest to a vector are read, and what they propose is ordered anew by float32. The centres are
k-means' (Sivic and Zisserman, 2003), the code is Faiss's (Douze et al., 2024). Training builds it
and serving maps it, so that workers share its memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

BEST = 100
"""Recall is measured on so many nearest items."""

ENOUGH_RECALL = 0.99

_FAISS: Any = faiss  # its stubs know nothing of what its Python side adds
_CHUNK = 100_000
_SAMPLE_OF_LIST = 50
"""So many items for each list tell where the centres lie."""

_NEARLY_ALL = 0.95
"""Where such a share of the items is allowed, what was measured on all of them holds."""

_OVERFETCH = 2
"""Eight bits change places near the end of a list: more are proposed than are wanted."""


@dataclass(frozen=True, eq=False)
class ItemIndex:
    """An inverted file over a matrix, float32 (items, dim). Safe to search from many threads."""

    lists: Any
    matrix: np.ndarray

    @classmethod
    def build(cls, matrix: np.ndarray, vectors: np.ndarray, *, seed: int) -> "ItemIndex":
        """An index that reads as few lists as find ENOUGH_RECALL of what is nearest to `vectors`.

        `vectors` are float32 (users, dim), such as users have. The same arguments on the same
        number of threads give the same index.
        """
        items, dim = matrix.shape
        count = max(1, round(2 * items**0.5))
        quantizer = faiss.IndexFlatIP(dim)
        lists = faiss.IndexIVFScalarQuantizer(
            quantizer,
            dim,
            count,
            faiss.ScalarQuantizer.QT_8bit,
            faiss.METRIC_INNER_PRODUCT,
            False,  # the numbers themselves, not what they are apart from the centre
        )
        lists.cp.seed = seed
        lists.cp.min_points_per_centroid = 1
        sample = min(items, _SAMPLE_OF_LIST * count)
        rows = np.random.default_rng(seed).choice(items, sample, replace=False)
        lists.train(np.ascontiguousarray(matrix[np.sort(rows)]))
        for at in _chunks(items):
            lists.add(np.ascontiguousarray(matrix[at]))
        index = cls(lists, matrix)
        index._choose_probes(vectors)
        return index

    @classmethod
    def read(cls, path: Path, matrix: np.ndarray) -> "ItemIndex":
        """Map an index from its file. Raises ValueError unless it is one of this matrix."""
        lists = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        found = type(lists).__name__, lists.ntotal, lists.d
        if found != ("IndexIVFScalarQuantizer", *matrix.shape):
            raise ValueError(f"{path.name} is {found}, for an item matrix of {matrix.shape}")
        return cls(lists, matrix)

    def write(self, path: Path) -> None:
        """Write the index, without the matrix."""
        faiss.write_index(self.lists, str(path))

    @property
    def probes(self) -> int:
        """How many lists are read for BEST items when all are allowed."""
        return int(self.lists.nprobe)

    def top(
        self, vector: np.ndarray, limit: int, allowed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The `limit` allowed rows nearest to a vector, best first, and their exact scores.

        `vector` is float32 (dim,), `allowed` bool (items,). Returns rows int64 and scores float32,
        as many as an exact search would; some of the nearest may be missed.
        """
        left = int(np.count_nonzero(allowed))
        if not left:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        chosen = _FAISS.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        share = left / len(allowed)
        probes = self._enough(limit, share)
        found = self._best(vector, limit, chosen, probes)
        # What is wanted may lie far from where the vector points: read on while that changes much.
        steady = share >= _NEARLY_ALL
        while probes < self.lists.nlist and (len(found[0]) < min(limit, left) or not steady):
            probes = min(2 * probes, self.lists.nlist)
            before, found = found, self._best(vector, limit, chosen, probes)
            same = len(np.intersect1d(before[0], found[0]))
            steady = same >= ENOUGH_RECALL * len(found[0])
        return found

    def recall(self, vectors: np.ndarray) -> float:
        """The share of the BEST items nearest to `vectors`, float32 (users, dim), that is found,
        with all allowed."""
        return self._recall(vectors, nearest_rows(self.matrix, vectors))

    def _enough(self, limit: int, share: float) -> int:
        """How many lists hold the nearest, where a share of the items is allowed."""
        probes = self.probes * max(1.0, limit / BEST) / share
        return int(min(np.ceil(probes), self.lists.nlist))

    def _best(
        self, vector: np.ndarray, limit: int, chosen: Any, probes: int
    ) -> tuple[np.ndarray, np.ndarray]:
        how = _FAISS.SearchParametersIVF(sel=chosen, nprobe=probes)
        rows = self.lists.search(vector[None], _OVERFETCH * max(limit, BEST), params=how)[1][0]
        rows = rows[rows >= 0]
        scores = np.vecdot(self.matrix[rows], vector)
        order = np.lexsort((rows, -scores))[:limit]
        return rows[order], scores[order]

    def _choose_probes(self, vectors: np.ndarray) -> None:
        nearest = nearest_rows(self.matrix, vectors)
        self.lists.nprobe = 1
        while self.probes < self.lists.nlist and self._recall(vectors, nearest) < ENOUGH_RECALL:
            self.lists.nprobe = min(2 * self.probes, self.lists.nlist)

    def _recall(self, vectors: np.ndarray, nearest: np.ndarray) -> float:
        found = (self._best(vector, BEST, None, self.probes)[0] for vector in vectors)
        hits = [len(np.intersect1d(*both)) for both in zip(found, nearest, strict=True)]
        return sum(hits) / nearest.size


def nearest_rows(matrix: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The rows of the BEST items nearest to each vector, int64 (users, BEST), in no order: exact.

    With fewer items than BEST, all of them.
    """
    best = min(BEST, len(matrix))
    scores = np.full((len(vectors), best), -np.inf, dtype=np.float32)
    rows = np.full(scores.shape, -1)
    for at in _chunks(len(matrix)):
        here = np.arange(at.start, at.stop)
        all_scores = np.hstack([scores, vectors @ matrix[at].T])
        all_rows = np.hstack([rows, np.broadcast_to(here, (len(vectors), len(here)))])
        keep = np.argpartition(-all_scores, best - 1, axis=1)[:, :best]
        scores, rows = (np.take_along_axis(of, keep, axis=1) for of in (all_scores, all_rows))
    return rows


def _chunks(items: int) -> Iterator[slice]:
    return (slice(at, min(at + _CHUNK, items)) for at in range(0, items, _CHUNK))
