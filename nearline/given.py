"""Vectors that new items are given, of a text, an image or a sound, as a release reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nearline import bundle
from nearline.lenders import likest
from nearline.schema import MODALITIES

SHORTEST = 1e-12
"""A vector as short as this says nothing."""

Given = Mapping[str, Sequence[float]]
"""An item's vectors by their modality; one that is missing is left out."""


@dataclass(frozen=True, eq=False)
class GivenVectors:
    """What given vectors say of an item in a release's space, and who is like it by them.

    `widths` are how long they are, for each of MODALITIES (0 for one that is not read); their sum W
    is how many numbers an item's row has. `projection` is float32 (W, dim). The items that lend are
    rows of the release, int64 (lenders,), `vectors` float16 (lenders, W) those they were given.
    """

    widths: tuple[int, ...]
    projection: np.ndarray
    items: np.ndarray
    vectors: np.ndarray

    def row(self, given: Given) -> np.ndarray:
        """An item's vectors side by side, float16 (W,): each of length 1, 0 for one that is missing
        or of another length than the release reads."""
        parts = [np.zeros(width, dtype=np.float16) for width in self.widths]
        for name, part in zip(MODALITIES, parts, strict=True):
            vector = np.asarray(given.get(name, ()), dtype=np.float32)
            if len(vector) == len(part):
                part[:] = vector / max(float(np.linalg.norm(vector)), SHORTEST)
        return np.concatenate(parts)

    def projected(self, row: np.ndarray) -> np.ndarray:
        """What a row says in the release's space, float32 (dim,)."""
        vector: np.ndarray = row.astype(np.float32) @ self.projection
        return vector

    def closest(self, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The items that lend to one by its row, and the share of each."""
        places, shares = likest(self.vectors.astype(np.float32) @ row.astype(np.float32))
        return self.items[places], shares

    def save(self, folder: Path) -> None:
        """Write what `read` reads."""
        arrays = {name: kept for name, kept in vars(self).items() if name != "vectors"}
        np.savez(folder / bundle.GIVEN, **arrays)
        np.save(folder / bundle.GIVEN_VECTORS, self.vectors)

    @classmethod
    def read(cls, folder: Path) -> "GivenVectors":
        """What `save` wrote; the vectors are mapped from their file."""
        vectors = np.load(folder / bundle.GIVEN_VECTORS, mmap_mode="r")
        with np.load(folder / bundle.GIVEN) as kept:
            widths = tuple(kept["widths"].tolist())
            return cls(widths, kept["projection"], kept["items"], vectors)
