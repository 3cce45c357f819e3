"""What lists are like beside being right, and how well whom and what is served.

- Novelty: the mean information of the items shown, in bits: -log2 of an item's share of what was
  learned (Vargas & Castells 2011, Rank and Relevance in Novelty and Diversity Metrics).
- Popularity: where the items shown stand among all by popularity, from 0, the least, to 1; lists
  drawn blindly have 0.5, so what is above it is bias.
- Diversity: one less the mean cosine between the contents of two items of a list (Ziegler et al.
  2005, Improving Recommendation Lists Through Topic Diversification).

Coverage has no interval: users who are drawn twice show nothing twice, so that it would always be
less than what was found.
"""

from collections.abc import Mapping

import numpy as np
from scipy import sparse
from scipy.stats import rankdata

from nearline.sequence import PAD
from training.dataset import Interactions
from training.evaluation import TOP, with_interval

FEW, MANY = 5, 20
"""Events that a user had before the one that is foreseen."""

_HEAD = 0.2
"""Share of the touched items, the most popular ones, that are called popular."""


def popularity(data: Interactions, learned: np.ndarray, *, items: int) -> np.ndarray:
    """How often each item is among the targets `learned`; int64 (items,)."""
    counts: np.ndarray = np.bincount(data.items[learned] - 1, minlength=items)
    return counts


def about_lists(
    lists: np.ndarray,
    users: np.ndarray,
    counts: np.ndarray,
    contents: sparse.csr_array | None,
    *,
    seed: int,
    of: str = "",
) -> dict[str, float]:
    """Novelty, popularity and diversity of lists, with intervals over users (95 %).

    Whose lists they are ends the names: `of`.

    `lists` are rows of items (lists, TOP), NONE where short, `users` (lists,) whose each is.
    `counts` (items,) tell how popular an item is, `contents` what it is about; without any there
    is no diversity. Nothing of no lists.
    """
    rows, places = np.nonzero(lists >= 0)
    if len(rows) == 0:
        return {}
    shown = lists[rows, places]
    bits = -np.log2((counts + 1) / (counts.sum() + len(counts)))
    place = (rankdata(counts) - 1) / max(len(counts) - 1, 1)
    values = {"novelty": (bits[shown], users[rows]), "popularity": (place[shown], users[rows])}
    if contents is not None:
        chosen = sparse.csr_array(
            (np.ones(len(rows)), (rows, shown)), shape=(len(lists), len(counts))
        )
        pairs, alike = _alike(chosen, contents)
        values["diversity"] = (1 - alike, users[pairs])
    found: dict[str, float] = {}
    for name, (each, whose) in values.items():
        found |= with_interval(f"{name}@{TOP}{of}", each, whose, seed=seed)
    return {name: round(value, 6) for name, value in found.items()}


def contents_of(words: np.ndarray) -> sparse.csr_array | None:
    """Items as vectors of length 1 of the words that they have, padded numbers (items, width).

    None where a single column says that items are ids and nothing else.
    """
    if words.shape[1] <= 1:
        return None
    rows, places = np.nonzero(words != PAD)
    had = sparse.csr_array(
        (np.ones(len(rows)), (rows, words[rows, places])), shape=(len(words), words.max() + 1)
    )
    had.data[:] = 1
    lengths = np.sqrt(np.maximum(had.sum(axis=1), 1))
    return sparse.csr_array(
        sparse.dia_array((1 / lengths[None], [0]), shape=(len(words),) * 2) @ had
    )


def _alike(chosen: sparse.csr_array, contents: sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Which lists have two items, and the mean cosine of two items of each of these."""
    sizes = chosen.sum(axis=1)
    own = chosen @ contents.multiply(contents).sum(axis=1)
    together = chosen @ contents
    both = together.multiply(together).sum(axis=1) - own
    pairs = sizes * (sizes - 1)
    some = np.flatnonzero(pairs)
    return some, both[some] / pairs[some]


def segments(
    data: Interactions, targets: np.ndarray, counts: np.ndarray, learned: np.ndarray
) -> Mapping[str, np.ndarray]:
    """Parts of the targets, bool (targets,) each: of what users, and of what items.

    `counts` as `popularity` gives them, of the targets `learned`. Cold is what was not learned of.
    """
    before = data.states[targets] - data.begins[targets] + 1
    known = np.isin(data.users[targets], data.users[learned])
    times = counts[data.items[targets] - 1]
    touched = np.sort(counts[counts > 0])
    head = touched[int(len(touched) * (1 - _HEAD))] if len(touched) else 1
    return {
        "cold users": ~known,
        f"users of up to {FEW} events": before <= FEW,
        f"users of over {MANY} events": before > MANY,
        "cold items": times == 0,
        "rare items": (times > 0) & (times < head),
        "popular items": times >= max(head, 1),
    }
