"""Items that are alike by what is said of them, as candidates: found the same way for training and
for serving.

Likeness is that of words (nearline/lenders.py), or of given vectors where words find nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from nearline.given import GivenVectors
from nearline.highest import highest
from nearline.lenders import Lenders, Loan

PROPOSED = 10
"""Candidates, at most: more would take too many of the places where candidates are ranked."""

MOST_READ = 1_000_000
"""Numbers of given vectors that one look-up compares with, at most, as a request waits for it: of
more, every so-many-th item is found."""


@dataclass(frozen=True, eq=False)
class Alike:
    """Which items of a release are like others: by words, or else by the vectors that they were
    given, None where the release keeps none."""

    lenders: Lenders
    given: GivenVectors | None = None

    def closest(self, words: Sequence[Sequence[int] | np.ndarray], rows: np.ndarray) -> list[Loan]:
        """The items most like each of some, never itself, and the share of each: CLOSEST at most.

        `words` are the buckets of each, `rows` int64 (items,) where they stand in the release, -1
        for one that it does not know: that has words alone.
        """
        loans = [
            self.lenders.closest(each, but=row)
            for each, row in zip(words, rows.tolist(), strict=True)
        ]
        if self.given is not None:
            step = max(1, ceil(self.given.vectors.size / MOST_READ))
            self.given.every(step).fill(loans, self.given.of(rows), but=rows)
        return loans


def proposed(loans: Sequence[Loan], allowed: np.ndarray) -> list[tuple[int, float]]:
    """The PROPOSED rows most like some items, at least one, by what `closest` found of each.

    As `summed` says.
    """
    rows, shares = (np.concatenate([loan[n] for loan in loans]) for n in (0, 1))
    return summed(rows, shares, allowed, PROPOSED)


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
