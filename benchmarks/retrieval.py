"""What finding a user's best hundred items costs on one core: ways, sizes, and what each loses.

Example: python -m benchmarks.retrieval --items 10000,100000,1000000

Each way is written to a file and mapped from it, as a worker of the API does it, and asked one
query at a time. `recall` is the share of the exact best hundred that it finds. Approximate ways
live on clusters: on vectors without any they are worse, so vectors are made as catalogues are.
Items lie around the centres of small groups (one of 200 items, a few much bigger than most), which
lie around those of 60 broad ones; later dimensions vary less than early ones. A query is a mixture
of three items with noise: its best item has a cosine of 0.84, the hundredth 0.66. `--release` takes
the items of a release instead. Published, one core: scoring by product quantisation takes 1.0, 1.8,
9.0 and 147 ms for 10k, 100k, 1M and 10M items, the plain product 1.1, 12, 112 and 1,112 ms.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import faiss
import numpy as np
import typer

from benchmarks.harness import machine, run, workplace
from nearline.bundle import read_matrix
from nearline.console import JsonFlag, print_json, print_table
from nearline.highest import highest
from nearline.item_index import BEST, nearest_rows

_CHUNK = 200_000
_MIB = 1 << 20

Search = Callable[[np.ndarray], np.ndarray]
"""Rows int64, best first, for one vector float32 (dim,)."""


@dataclass(frozen=True)
class Figures:
    """One way for one size. `mib` is what is searched; ways that order anew read the matrix too."""

    items: int
    way: str
    p50_ms: float
    p99_ms: float
    recall: float
    mib: float
    build_s: float


def make_items(path: Path, items: int, dim: int, *, seed: int = 3) -> np.ndarray:
    """Item vectors of length 1, float32 (items, dim), written chunk by chunk and mapped."""
    rng = np.random.default_rng(seed)
    groups = max(items // 200, 100)
    broad = rng.standard_normal((60, dim), dtype=np.float32)
    centres = broad[rng.integers(0, 60, groups)]
    centres += 0.9 * rng.standard_normal((groups, dim), dtype=np.float32)
    size = np.arange(1, groups + 1) ** -0.5
    spread = ((1 + np.arange(dim)) ** -0.4).astype(np.float32)
    matrix = np.lib.format.open_memmap(path, "w+", np.float32, (items, dim))
    for at in _chunks(items):
        of = rng.choice(groups, at.stop - at.start, p=size / size.sum())
        noise = rng.standard_normal((len(of), dim), dtype=np.float32)
        matrix[at] = _unit((centres[of] + 0.8 * noise) * spread)
    return matrix


def make_queries(matrix: np.ndarray, queries: int, *, seed: int = 5) -> np.ndarray:
    """Vectors of users who like three things, float32 (queries, dim)."""
    rng = np.random.default_rng(seed)
    liked = matrix[rng.integers(0, len(matrix), (queries, 3))]
    shares = rng.dirichlet([1, 0.7, 0.5], queries).astype(np.float32)
    vectors = _unit(np.einsum("qld,ql->qd", liked, shares))
    noise = rng.standard_normal(vectors.shape, dtype=np.float32)
    return _unit(vectors + 0.45 / np.sqrt(matrix.shape[1], dtype=np.float32) * noise)


def product(matrix: np.ndarray) -> Search:
    """Every item scored by float32."""

    def search(query: np.ndarray) -> np.ndarray:
        return highest(np.vecdot(matrix, query), BEST)

    return search


def ordered_anew(index: Any, matrix: np.ndarray, candidates: int) -> Search:
    """The best that an index proposes, by float32."""

    def search(query: np.ndarray) -> np.ndarray:
        rows = index.search(query[None], candidates)[1][0]
        rows = rows[rows >= 0]
        return rows[highest(np.vecdot(matrix[rows], query), BEST)]

    return search


def as_proposed(index: Any, matrix: np.ndarray, candidates: int) -> Search:
    """What an index proposes, by its own scores."""
    return lambda query: index.search(query[None], BEST)[1][0]


@dataclass(frozen=True)
class Way:
    """An index of faiss, by the name that its factory knows, and how it is asked."""

    name: str
    factory: Callable[[int], str]
    candidates: int = 0
    probes: int = 0
    most: int = 100_000_000
    sample: int = 100_000

    def build(self, matrix: np.ndarray) -> Any:
        """The index, trained on a sample and filled."""
        rng = np.random.default_rng(0)
        rows = rng.choice(len(matrix), min(self.sample, len(matrix)), replace=False)
        made = self.factory(len(matrix))
        index = faiss.index_factory(matrix.shape[1], made, faiss.METRIC_INNER_PRODUCT)
        index.train(np.ascontiguousarray(matrix[np.sort(rows)]))
        for at in _chunks(len(matrix)):
            index.add(np.ascontiguousarray(matrix[at]))
        return index

    def search(self, index: Any, matrix: np.ndarray) -> Search:
        """How the index is asked."""
        if self.probes:
            faiss.extract_index_ivf(index).nprobe = self.probes
        if isinstance(index, faiss.IndexHNSW):
            index.hnsw.efSearch = 4 * self.candidates
        how = ordered_anew if self.candidates else as_proposed
        return how(index, matrix, self.candidates)


def lists(items: int) -> int:
    """So many lists an inverted file has."""
    return int(2 * items**0.5)


WAYS = [
    Way("PQ scoring, 8 bytes", lambda n: "PQ8x8", sample=20_000),
    Way("int8, all", lambda n: "SQ8", 200),
    Way("4 bits, all", lambda n: "PQ64x4fs", 1000, most=1_000_000, sample=20_000),
    *(Way(f"IVF int8, {p} lists", lambda n: f"IVF{lists(n)},SQ8", 200, p) for p in (32, 64, 128)),
    Way("IVF 4 bits, 128 lists", lambda n: f"IVF{lists(n)},PQ64x4fs", 1000, 128, 1_000_000, 20_000),
    Way("IVF PQ, 128 lists", lambda n: f"IVF{lists(n)},PQ16x8", 1000, 128, 100_000, 20_000),
    Way("HNSW int8", lambda n: "HNSW32_SQ8", 200, most=100_000),
]


def measure(
    matrix: np.ndarray, queries: np.ndarray, folder: Path, *, only: str = ""
) -> Iterator[Figures]:
    """The figures of the ways that `only` begins; an index that several share is built once."""
    right = nearest_rows(matrix, queries)
    yield _figures("float32, all", matrix, product(matrix), queries, right, matrix.nbytes, 0)
    built: tuple[str, float] = "", 0
    file = folder / "index"
    for way in WAYS:
        if len(matrix) > way.most or not way.name.startswith(only):
            continue
        if built[0] != way.factory(len(matrix)):
            began = time.perf_counter()
            faiss.write_index(way.build(matrix), str(file))
            built = way.factory(len(matrix)), time.perf_counter() - began
        index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
        search = way.search(index, matrix)
        size = file.stat().st_size
        yield _figures(way.name, matrix, search, queries, right, size, built[1])


def _figures(
    way: str,
    matrix: np.ndarray,
    search: Search,
    queries: np.ndarray,
    right: np.ndarray,
    size: int,
    build_s: float,
) -> Figures:
    taken, hits = [], 0
    search(queries[0])  # the first one reads the file
    for query, rows in zip(queries, right, strict=True):
        began = time.perf_counter()
        found = search(query)
        taken.append((time.perf_counter() - began) * 1000)
        hits += len(np.intersect1d(found, rows))
    p50, p99 = np.percentile(taken, [50, 99])
    return Figures(
        items=len(matrix),
        way=way,
        p50_ms=round(float(p50), 2),
        p99_ms=round(float(p99), 2),
        recall=round(hits / right.size, 4),
        mib=round(size / _MIB, 1),
        build_s=round(build_s, 1),
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _chunks(items: int) -> Iterator[slice]:
    return (slice(at, min(at + _CHUNK, items)) for at in range(0, items, _CHUNK))


def _matrices(folder: Path, sizes: str, dim: int, release: Path | None) -> Iterator[np.ndarray]:
    if release:
        yield np.asarray(read_matrix(release))
        return
    for items in map(int, sizes.split(",")):
        yield np.asarray(make_items(folder / "items.npy", items, dim))


def main(
    items: Annotated[str, typer.Option(help="Sizes, with commas.")] = "10000,100000,1000000",
    dim: Annotated[int, typer.Option(help="Numbers of a vector, at least 64.", min=64)] = 64,
    queries: Annotated[int, typer.Option(help="Queries of each way.")] = 200,
    release: Annotated[Path | None, typer.Option(help="Folder of a release.")] = None,
    only: Annotated[str, typer.Option(help="Ways whose names begin so, and every item.")] = "",
    as_json: JsonFlag = False,
) -> None:
    faiss.omp_set_num_threads(1)
    found: list[Figures] = []
    with workplace(None) as folder:
        for matrix in _matrices(folder, items, dim, release):
            for figures in measure(matrix, make_queries(matrix, queries), folder, only=only):
                sys.stderr.write(f"{figures}\n")
                found.append(figures)
    if as_json:
        print_json([asdict(figures) for figures in found])
        return
    columns = ["items", "way", "p50 ms", "p99 ms", "recall", "MiB", "build s"]
    rows = [(f"{items:,}", *rest) for items, *rest in (vars(each).values() for each in found)]
    print_table(machine(), columns, rows)


main.__doc__ = __doc__  # the command's help

if __name__ == "__main__":
    run(main)
