"""The baselines on the same events: counted anew at each tick, the user's history always live."""

from pathlib import Path

import numpy as np

from training.baselines import (
    Neighbours,
    item_neighbours,
    neighbour_scorer,
    popularity,
    popularity_scorer,
)
from training.dataset import NONE, Interactions
from training.evaluation import Scorer
from training.replay.timeline import Timeline

_DAYS = {"popular": None, "popular_30d": 30, "popular_7d": 7, "popular_1d": 1}


class BaselineLine:
    """A baseline that knows what happened before a moment, that of its last tick.

    It is counted at a tick, or else when it is first asked: one that is read again to tick at once
    is not counted twice.
    """

    def __init__(self, timeline: Timeline, name: str, moment: int) -> None:
        self.timeline, self.name = timeline, name
        self._counted: tuple[np.ndarray, Neighbours | None] | None = None
        self._know(moment)

    @classmethod
    def kept(cls, path: Path, timeline: Timeline, name: str) -> "BaselineLine":
        """A line that goes on from a file that `save` wrote."""
        return cls(timeline, name, int(path.read_text()))

    def tick(self, moment: int) -> None:
        """Count what has happened before a moment."""
        self._know(moment)
        self._counted = self._count()

    def _know(self, moment: int) -> None:
        self.learned_until, self.items = moment, self.timeline.items_before(moment)
        self._counted = None

    def _count(self) -> tuple[np.ndarray, Neighbours | None]:
        """How often each item was touched, and of item-to-item the neighbours."""
        before, items = self.learned_until, self.items
        data, near = self.timeline.seen(before=before, items=items).data, None
        if self.name not in _DAYS:
            near = item_neighbours(data, items=items, before=before)
        days = _DAYS.get(self.name)
        return popularity(data, items=items, before=before, days=days), near

    def scorer(self, state: str, encoder: str, data: Interactions) -> Scorer:
        """Its order of the items; item-to-item answers strangers with the popular."""
        counts, neighbours = self._counted = self._counted or self._count()
        popular = popularity_scorer(counts)
        if neighbours is None:
            return popular
        near = neighbour_scorer(data, neighbours)

        def score(targets: np.ndarray) -> np.ndarray:
            known = data.states[targets] != NONE
            return np.where(known[:, None], near(targets), popular(targets))

        return score

    def save(self, path: Path) -> None:
        """Keep the moment: the rest is counted again."""
        path.write_text(str(self.learned_until))
