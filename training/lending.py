"""Items of which nothing is learned borrow the vectors of learned ones that are like them.

Likeness is that of words (nearline/lenders.py). An item whose words find nobody, such as one that
is only a picture, borrows of those whose given vectors are nearest to its own.
"""

from math import ceil

import numpy as np
import torch
from scipy import sparse

from nearline.alike import Alike
from nearline.given import GivenVectors
from nearline.lenders import Lenders, Loan
from training.model import Model
from training.neighbours import Graph

_MOST_LENDERS = 50_000
"""By given vectors, each is compared with each: of more learned items every so-many-th lends."""


def lenders(model: Model) -> Lenders:
    """The items of which something was learned, by their words."""
    tower = model.item_tower
    words, learned = (part.cpu().numpy() for part in (tower.content.words, tower.touched))
    buckets, share = model.config.content_buckets, tower.loan.item()
    return Lenders.of(words, learned, buckets=buckets, share=share)


def by_given(model: Model) -> GivenVectors | None:
    """What the model makes of given vectors, and who lends by them; None where it reads none."""
    content, touched = model.item_tower.content, model.item_tower.touched
    if not content.widths:
        return None
    items = np.flatnonzero((content.given.any(dim=1) & touched).cpu().numpy())
    items = items[:: max(1, ceil(len(items) / _MOST_LENDERS))]
    projection = torch.cat(list(content.projections.parameters()), dim=1).T
    vectors = content.given[torch.from_numpy(items)]
    arrays = (part.detach().cpu().numpy() for part in (projection, vectors))
    projected, kept = (np.ascontiguousarray(array) for array in arrays)
    return GivenVectors(tuple(model.config.given), projected, items, kept)


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


def alike(model: Model) -> Alike:
    """The items most like each by content: those that lend to it, or would if nothing were learned
    of it."""
    return Alike.of(*(part.cpu().numpy() for part in model.item_tower.loans))


def _loans(model: Model, asked: np.ndarray) -> list[Loan]:
    """Who lends to each of these items: by words, or else by given vectors."""
    content, found, given = model.item_tower.content, lenders(model), by_given(model)
    words = content.words[torch.from_numpy(asked)].cpu().numpy()
    loans = [found.closest(w[w > 0], but=item) for w, item in zip(words, asked, strict=True)]
    if given is not None:
        given.fill(loans, content.given[torch.from_numpy(asked)].cpu().numpy(), but=asked)
    return loans


def _matrix(loans: list[Loan], asked: np.ndarray, items: int) -> sparse.csr_array:
    """Loans as a matrix (items, items): who lends stands in the row of who borrows."""
    rows = np.repeat(asked, [len(found) for found, _ in loans])
    columns, shares = (np.concatenate([loan[n] for loan in loans] or [rows]) for n in (0, 1))
    return sparse.csr_array((shares, (rows, columns)), shape=(items, items))
