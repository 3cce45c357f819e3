"""The vector of an item of which its content alone is known, as training makes it too."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nearline.given import SHORTEST, Given, GivenVectors
from nearline.lenders import Lenders
from nearline.words import numbers


@dataclass(frozen=True, eq=False)
class ContentVectors:
    """What a release knows of content: `table` is (buckets + 1, dim), a vector for each word.

    `matrix`, float32 (items, dim), and `norms`, float32 (items,), are the release's items, of which
    `lenders` lend to one that is like them by its words, or else those that `given` finds; None
    where no item was given vectors.
    """

    table: np.ndarray
    matrix: np.ndarray
    norms: np.ndarray
    lenders: Lenders
    given: GivenVectors | None = None

    def of(
        self,
        title: str | None,
        text: str | None,
        categories: Sequence[str] | None,
        given: Given | None = None,
    ) -> np.ndarray:
        """The vector of an item, float32 (dim,), of length 1."""
        rows = numbers(title, text, categories, buckets=len(self.table) - 1)
        vector = self.table[rows].astype(np.float32).mean(axis=0)
        items, shares = self.lenders.closest(rows)
        if self.given is not None and given:
            own = self.given.row(given)
            vector += self.given.projected(own)
            if not len(items) and own.any():
                items, shares = self.given.closest(own)
        if len(items):
            vector += self.lenders.share * (shares * self.norms[items]) @ self.matrix[items]
        unit: np.ndarray = vector / max(float(np.linalg.norm(vector)), SHORTEST)
        return unit
