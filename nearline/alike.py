"""Items of a release that are alike by what is said of them, as candidates.

Training finds them, for every item: those that lend to it or would (training/lending.py), by words
or by given vectors. Proposing them is the same in training and in serving.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nearline import bundle
from nearline.highest import highest
from nearline.lenders import CLOSEST

PROPOSED = 10
"""Candidates, at most: more would take too many of the places where candidates are ranked."""


@dataclass(frozen=True, eq=False)
class Alike:
    """The items most like each: `rows`, int32 (items, CLOSEST), -1 where there are fewer, and the
    share of each in `shares`, float32, as large."""

    rows: np.ndarray
    shares: np.ndarray

    @classmethod
    def of(cls, starts: np.ndarray, items: np.ndarray, shares: np.ndarray) -> "Alike":
        """From compressed sparse rows: item i has those from `starts[i]` to `starts[i + 1]`."""
        counts = np.diff(starts)
        who = np.repeat(np.arange(len(counts)), counts)
        place = np.arange(len(items)) - np.repeat(starts[:-1], counts)
        found = cls(
            np.full((len(counts), CLOSEST), -1, dtype=np.int32),
            np.zeros((len(counts), CLOSEST), dtype=np.float32),
        )
        found.rows[who, place], found.shares[who, place] = items, shares
        return found

    def proposed(self, asked: np.ndarray, allowed: np.ndarray) -> list[tuple[int, float]]:
        """The PROPOSED items most like some, rows int64 (any,), as `summed` says."""
        rows, shares = self.rows[asked], self.shares[asked]
        return summed(rows[rows >= 0], shares[rows >= 0], allowed, PROPOSED)

    def save(self, folder: Path) -> None:
        """Write what `read` reads."""
        np.save(folder / bundle.ALIKE, self.rows)
        np.save(folder / bundle.ALIKE_SHARES, self.shares)

    @classmethod
    def read(cls, folder: Path) -> "Alike":
        """What `save` wrote, mapped: all processes share it."""
        parts = (bundle.ALIKE, bundle.ALIKE_SHARES)
        return cls(*(np.load(folder / file, mmap_mode="r") for file in parts))


def summed(
    rows: np.ndarray, likeness: np.ndarray, allowed: np.ndarray, limit: int
) -> list[tuple[int, float]]:
    """The `limit` allowed rows with their summed likeness, best first, of equal ones the first.

    A row stands in `rows` once for each item that it is like; `likeness` is as long, and `allowed`
    bool (items of the release,).
    """
    there = allowed[rows]
    found, place = np.unique(rows[there], return_inverse=True)
    scores = np.bincount(place, likeness[there])
    best = highest(scores, limit)
    return list(zip(found[best].tolist(), scores[best].tolist(), strict=True))
