"""Vectors that new items are given, of a text, an image or a sound, as a release reads them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nearline import bundle
from nearline.lenders import Loan, likest
from nearline.schema import MODALITIES

SHORTEST = 1e-12
"""A vector as short as this says nothing."""

_CHUNK = 256

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
            vector = np.asarray(given.get(name, ()), dtype=np.float64)  # whose squares are finite
            if len(vector) == len(part):
                part[:] = vector / max(float(np.linalg.norm(vector)), SHORTEST)
        return np.concatenate(parts)

    def projected(self, rows: np.ndarray) -> np.ndarray:
        """What rows, float16 (items, W), say in the release's space, float32 (items, dim)."""
        vectors: np.ndarray = rows.astype(np.float32) @ self.projection
        return vectors

    def closest(self, rows: np.ndarray, *, but: np.ndarray | None = None) -> Iterator[Loan]:
        """Who lends to items by their rows, float16 (items, W): those most like each, by cosine.

        The cosines of modalities add up. With `but`, int64 (items,), nobody lends to itself.
        """
        table = self.vectors.astype(np.float32)
        for at in range(0, len(rows), _CHUNK):
            scores = rows[at : at + _CHUNK].astype(np.float32) @ table.T  # (chunk, lenders)
            if but is not None:
                scores[but[at : at + _CHUNK, None] == self.items] = 0
            for places, shares in map(likest, scores):
                yield self.items[places], shares

    def fill(self, loans: list[Loan], rows: np.ndarray, *, but: np.ndarray | None = None) -> None:
        """Where words found nobody who lends, those lend whom `closest` finds; changes `loans`.

        `rows` and `but` are those of `closest`, for each loan.
        """
        silent = [n for n, (items, _) in enumerate(loans) if not len(items) and rows[n].any()]
        if not silent:
            return
        found = self.closest(rows[silent], but=None if but is None else but[silent])
        for n, loan in zip(silent, found, strict=True):
            loans[n] = loan

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
