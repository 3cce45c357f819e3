"""Items of which nothing is learned borrow the vectors of learned ones that are like them."""

import numpy as np
from scipy import sparse

from nearline.lenders import Lenders
from training.model import Model
from training.neighbours import Graph


def lenders(model: Model) -> Lenders:
    """The items of which something was learned, by their words."""
    tower = model.item_tower
    words, learned = (part.cpu().numpy() for part in (tower.content.words, tower.touched))
    buckets, share = model.config.content_buckets, tower.loan.item()
    return Lenders.of(words, learned, buckets=buckets, share=share)


def borrow(model: Model, about: np.ndarray | None = None) -> None:
    """Find who lends to each item, or to some (bool (items,)): others keep those they have."""
    tower, found = model.item_tower, lenders(model)
    words = tower.content.words.cpu().numpy()
    asked = np.arange(len(words)) if about is None else np.flatnonzero(about)
    loans = [found.closest(words[item][words[item] > 0], but=item) for item in asked.tolist()]
    rows = np.repeat(asked, [len(items) for items, _ in loans])
    items, shares = (np.concatenate([each[n] for each in loans] or [rows]) for n in (0, 1))
    new = sparse.csr_array((shares, (rows, items)), shape=(len(words), len(words)))
    if about is not None:
        kept = sparse.dia_array((~about[None], [0]), shape=new.shape).astype(np.float32)
        new = new + kept @ tower.loans.matrix()
    tower.borrow(Graph.of(new.tocsr()))
