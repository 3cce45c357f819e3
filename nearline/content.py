"""The vectors of items of which their content alone is known, as training makes them too."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nearline.given import SHORTEST, Given, GivenVectors
from nearline.lenders import Lenders
from nearline.words import numbers


class Told(Protocol):
    """What an item says about itself; no vectors where none are known."""

    @property
    def title(self) -> str | None: ...
    @property
    def text(self) -> str | None: ...
    @property
    def categories(self) -> Sequence[str] | None: ...
    @property
    def given(self) -> Given | None: ...


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

    def of(self, items: Sequence[Told]) -> np.ndarray:
        """The vectors of items, at least one, float32 (items, dim), each of length 1."""
        buckets = len(self.table) - 1
        words = [numbers(i.title, i.text, i.categories, buckets=buckets) for i in items]
        vectors = np.stack([self.table[rows].astype(np.float32).mean(axis=0) for rows in words])
        loans = [self.lenders.closest(rows) for rows in words]
        if self.given is not None:
            own = np.stack([self.given.row(item.given or {}) for item in items])
            vectors += self.given.projected(own)
            self.given.fill(loans, own)
        for vector, (found, shares) in zip(vectors, loans, strict=True):
            vector += self.lenders.share * (shares * self.norms[found]) @ self.matrix[found]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        units: np.ndarray = vectors / np.maximum(lengths, SHORTEST)
        return units
