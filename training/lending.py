"""Items of which nothing is learned borrow the vectors of learned ones that are like them.

Likeness is that of words (nearline/lenders.py). An item whose words find nobody, such as one that
is only a picture, borrows of those whose given vectors are nearest to its own.
"""

from collections.abc import Iterator
from math import ceil

import numpy as np
import torch
from scipy import sparse

from nearline.given import GivenVectors
from nearline.lenders import Lenders, likest
from training.model import Model
from training.neighbours import Graph

_MOST_LENDERS = 50_000
"""By given vectors, each is compared with each: of more learned items every so-many-th lends."""

_CHUNK = 256

Loan = tuple[np.ndarray, ...]
"""Rows of the items that lend to one, and the share of each."""


def lenders(model: Model) -> Lenders:
    """The items of which something was learned, by their words."""
    tower = model.item_tower
    words, learned = (part.cpu().numpy() for part in (tower.content.words, tower.touched))
    buckets, share = model.config.content_buckets, tower.loan.item()
    return Lenders.of(words, learned, buckets=buckets, share=share)


def by_given(model: Model) -> GivenVectors | None:
    """What the model makes of given vectors; None where it reads none."""
    content, items = model.item_tower.content, _with_vectors(model)
    if not content.widths:
        return None
    projection = torch.cat(list(content.projections.parameters()), dim=1).T
    vectors = content.given[torch.from_numpy(items)]
    arrays = (part.detach().cpu().numpy() for part in (projection, vectors))
    projected, kept = (np.ascontiguousarray(array) for array in arrays)
    return GivenVectors(tuple(model.config.given), projected, items, kept)


def _with_vectors(model: Model) -> np.ndarray:
    """Rows of learned items with given vectors: all, or every so-many-th of more than lend."""
    tower = model.item_tower
    given = tower.content.given.any(dim=1) & tower.touched
    learned = np.flatnonzero(given.cpu().numpy())
    return learned[:: max(1, ceil(len(learned) / _MOST_LENDERS))]


def borrow(model: Model, about: np.ndarray | None = None) -> None:
    """Find who lends to each item, or to some (bool (items,)): others keep those they have."""
    if about is not None and not about.any():
        return
    tower = model.item_tower
    items = model.config.items
    asked = np.arange(items) if about is None else np.flatnonzero(about)
    new = _matrix(_loans(model, asked), asked, items)
    if about is not None:
        kept = sparse.dia_array((~about[None], [0]), shape=new.shape).astype(np.float32)
        new = new + kept @ tower.loans.matrix()
    tower.borrow(Graph.of(new.tocsr()))


def _loans(model: Model, asked: np.ndarray) -> list[Loan]:
    """Who lends to each of these items: by words, or else by given vectors."""
    content, found = model.item_tower.content, lenders(model)
    words, given = content.words.cpu().numpy(), content.given.cpu().numpy()
    loans = [found.closest(words[item][words[item] > 0], but=item) for item in asked.tolist()]
    silent = [place for place, (items, _) in enumerate(loans) if not len(items)]
    silent = [place for place in silent if given[asked[place]].any()]
    learned = _with_vectors(model)
    for place, loan in zip(silent, nearest(given, learned, asked[silent]), strict=True):
        loans[place] = loan
    return loans


def nearest(given: np.ndarray, learned: np.ndarray, asked: np.ndarray) -> Iterator[Loan]:
    """The `learned` items (rows) most like each of those `asked`, but not itself, by cosine.

    `given` is float16 (items, widths), each modality's part of length 1 or 0: cosines add up.
    """
    table = given[learned].astype(np.float32)
    for start in range(0, len(asked), _CHUNK):
        some = asked[start : start + _CHUNK]
        scores = given[some].astype(np.float32) @ table.T  # (chunk, learned)
        scores[some[:, None] == learned] = 0
        for places, shares in map(likest, scores):
            yield learned[places], shares


def _matrix(loans: list[Loan], asked: np.ndarray, items: int) -> sparse.csr_array:
    """Loans as a matrix (items, items): who lends stands in the row of who borrows."""
    rows = np.repeat(asked, [len(found) for found, _ in loans])
    columns, shares = (np.concatenate([loan[n] for loan in loans] or [rows]) for n in (0, 1))
    return sparse.csr_array((shares, (rows, columns)), shape=(items, items))
