"""Items that lend their vectors to one of which nothing is learned yet: those most like it.

Words say that an item is a lipstick of some brand; what was learned of that brand's other
lipsticks says who turns to it. Likeness is the cosine of words weighted by how rare they are
(tf-idf). Of each word only some items are kept, those that say little else: champion lists, Manning
et al. 2008, Introduction to Information Retrieval (section 7.1.3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nearline.highest import highest

CLOSEST = 8
"""Items that lend to one, at most."""

_CHAMPIONS = 256
"""Items kept of one word, at most."""


Loan = tuple[np.ndarray, np.ndarray]
"""Rows of the items that lend to one, and the share of each."""


@dataclass(frozen=True, eq=False)
class Lenders:
    """Which items, of those that lend, have a word: `items[starts[w]:starts[w + 1]]` for word w.

    `starts` is int64 (buckets + 2,), `items` int32, `rarity` float32 (buckets + 1,); `lengths`,
    float32 (all items,), are those of the items' rows of rarities. `share` is how much of the
    loan counts beside the words themselves.
    """

    starts: np.ndarray
    items: np.ndarray
    rarity: np.ndarray
    lengths: np.ndarray
    share: float

    @classmethod
    def of(cls, words: np.ndarray, learned: np.ndarray, *, buckets: int, share: float) -> "Lenders":
        """Items that are `learned` (bool (items,)) lend, by their `words`, int64 (items, width).

        A word that all of them have tells nothing, and is left out.
        """
        rows, places = np.nonzero(words * learned[:, None])
        said = words[rows, places]
        counts = np.bincount(said, minlength=buckets + 1)
        rarity = np.log(max(learned.sum(), 1) / np.maximum(counts, 1)) * (counts > 0)
        lengths = np.sqrt(np.bincount(rows, rarity[said] ** 2, minlength=len(words)))
        order = np.lexsort((rows, lengths[rows], said))
        order = order[rarity[said[order]] > 0]
        told = said[order]
        begins = np.searchsorted(told, told)
        order = order[np.arange(len(order)) - begins < _CHAMPIONS]
        starts = np.searchsorted(said[order], np.arange(buckets + 2))
        items, numbers = rows[order].astype(np.int32), np.float32
        return cls(starts, items, rarity.astype(numbers), lengths.astype(numbers), share)

    def closest(self, words: Sequence[int] | np.ndarray, *, but: int = -1) -> Loan:
        """The items most like one of these words, except one row, and the share of each; at most
        CLOSEST, none where no word tells anything."""
        if not self.rarity[words].any():
            return np.zeros(0, np.int32), np.zeros(0)
        lists = [self.items[self.starts[word] : self.starts[word + 1]] for word in words]
        rows = np.concatenate([*lists, np.zeros(0, np.int32)])
        weights = np.repeat(self.rarity[words] ** 2, [len(each) for each in lists])
        found, where = np.unique(rows[rows != but], return_inverse=True)
        scores = np.bincount(where, (weights / self.lengths[rows])[rows != but], len(found))
        best, shares = likest(scores)
        return found[best], shares

    def save(self, path: Path) -> None:
        """Write what `read` reads."""
        np.savez(path, **vars(self))

    @classmethod
    def read(cls, path: Path) -> "Lenders":
        """What `save` wrote."""
        with np.load(path) as kept:
            return cls(**(dict(kept) | {"share": float(kept["share"])}))


def likest(scores: np.ndarray) -> Loan:
    """The places of the CLOSEST highest scores above 0, of equal ones the first, and their shares:
    together 1."""
    best = highest(scores, CLOSEST)
    best = best[scores[best] > 0]
    return best, scores[best] / scores[best].sum()
