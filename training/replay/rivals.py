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
    """A baseline that knows what happened before its last tick."""

    def __init__(self, timeline: Timeline, name: str) -> None:
        self.timeline, self.name = timeline, name
        self.tick(timeline.start)

    def tick(self, moment: int) -> None:
        """Count what has happened before a moment."""
        self.learned_until, self.items = moment, self.timeline.items_before(moment)
        data = self.timeline.seen(before=moment, items=self.items).data
        self._neighbours: Neighbours | None = None
        if self.name in _DAYS:
            days = _DAYS[self.name]
        else:
            self._neighbours, days = item_neighbours(data, items=self.items, before=moment), None
        self._counts = popularity(data, items=self.items, before=moment, days=days)

    def scorer(self, state: str, encoder: str, data: Interactions) -> Scorer:
        """Its order of the items; item-to-item answers strangers with the popular."""
        popular = popularity_scorer(self._counts)
        if self._neighbours is None:
            return popular
        near = neighbour_scorer(data, self._neighbours)

        def score(targets: np.ndarray) -> np.ndarray:
            known = data.states[targets] != NONE
            return np.where(known[:, None], near(targets), popular(targets))

        return score

    def save(self, path: Path) -> None:
        """Keep the moment: the rest is counted again."""
        path.write_text(str(self.learned_until))

    def restore(self, path: Path) -> None:
        """Go on from a moment."""
        self.tick(int(path.read_text()))
