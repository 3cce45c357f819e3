"""What each source would have proposed at past moments, as serving retrieves it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nearline.alike import summed
from nearline.highest import highest
from nearline.ranking import POOL, TIED
from training.baselines import Neighbours
from training.dataset import Interactions, touched
from training.evaluation import encode
from training.lending import alike
from training.model import Model

_LISTED = 50
"""Neighbours of an item that are known online."""

_CHUNK_CELLS = 4_000_000
"""Scores in memory at once: targets times items."""

Proposed = Sequence[tuple[int, float]]
"""Rows of items with scores, best first."""


@dataclass(frozen=True)
class Retrieval:
    """The sources before a cut: `model` and `neighbours` have learned nothing after it."""

    data: Interactions
    model: Model
    matrix: np.ndarray
    neighbours: Neighbours

    def lists(
        self, targets: np.ndarray, trends: Sequence[Proposed]
    ) -> Iterator[dict[str, Proposed]]:
        """The lists of each source for each target, what the user had touched left out.

        `trends` is the trending list at the moment of each.
        """
        vectors = self.model.item_tower().detach()
        newest = [_once(self.newest(target)) for target in targets]
        like = alike(self.model)
        step = max(_CHUNK_CELLS // len(self.matrix), 1)
        for start in range(0, len(targets), step):
            part = targets[start : start + step]
            scores = encode(self.model, vectors, self.data, part) @ self.matrix.T
            seen = np.zeros(scores.shape, dtype=bool)
            seen[touched(self.data, self.data.states[part])] = True
            for n, tied in enumerate(newest[start : start + step]):
                trending = [pair for pair in trends[start + n] if not seen[n, pair[0]]]
                yield {
                    "encoder": _top(scores[n], seen[n]),
                    "cooccurrence": self._together(tied, ~seen[n]),
                    "alike": like.proposed(tied, ~seen[n]),
                    "trending": trending[:POOL],
                }

    def newest(self, target: int) -> np.ndarray:
        """Rows of the newest items before a target, oldest first."""
        return touched(self.data, self.data.states[[target]], newest=TIED)[1]

    def _together(self, newest: np.ndarray, unseen: np.ndarray) -> Proposed:
        """The neighbours of the newest items, by their summed likeness to these."""
        near, likeness = (
            part[newest, :_LISTED] for part in (self.neighbours.rows, self.neighbours.likeness)
        )
        return summed(near[near >= 0], likeness[near >= 0], unseen, POOL)


def _once(rows: np.ndarray) -> np.ndarray:
    """The rows, each once, in their order."""
    return np.array(list(dict.fromkeys(rows.tolist())), dtype=np.int64)


def _top(scores: np.ndarray, seen: np.ndarray) -> Proposed:
    """At most POOL items that were not seen, best first, as serving orders them."""
    unseen = np.flatnonzero(~seen)
    return _best(unseen, scores[unseen])


def _best(rows: np.ndarray, scores: np.ndarray) -> Proposed:
    """At most POOL of the rows with their scores, best first; of equal ones the first."""
    best = highest(scores, POOL)
    return list(zip(rows[best].tolist(), scores[best].tolist(), strict=True))
