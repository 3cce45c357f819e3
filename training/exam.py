"""One exam for all methods: the same events to foresee, answers told in the same words."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import sparse

from training.beyond import about_lists, contents_of, popularity, segments
from training.dataset import NONE, Interactions
from training.evaluation import TOP, Evaluation, Scorer, evaluate


@dataclass(frozen=True, eq=False)
class Exam:
    """`targets` are to be foreseen by those who have learned the targets `learned`, at most.

    Both are positions of `data`. `words` are the items' content, int64 (items, width).
    """

    data: Interactions
    targets: np.ndarray
    learned: np.ndarray
    words: np.ndarray

    def ask(self, score: Scorer) -> Evaluation:
        """What a method answers, with the parts of users and items to tell it for."""
        found = evaluate(score, self.data, self.targets, items=len(self.words))
        return replace(found, segments=self._parts)

    def told(self, found: Evaluation, *, seed: int) -> dict[str, float]:
        """How right the lists are that a method answered, and what they are like, parts too."""
        figures = found.metrics(seed=seed) | self._about(found, seed)
        for name, part in found.segments.items():
            some = found.only(part)
            if len(some.lists):
                shown = np.unique(some.lists[some.lists != NONE])
                figures[f"coverage@{TOP} of {name}"] = round(len(shown) / len(self.words), 6)
                figures |= self._about(some, seed, of=f" of {name}")
        return figures

    def _about(self, found: Evaluation, seed: int, of: str = "") -> dict[str, float]:
        told = found.lists, found.users, self._counts, self._contents
        return about_lists(*told, seed=seed, of=of)

    @cached_property
    def _counts(self) -> np.ndarray:
        return popularity(self.data, self.learned, items=len(self.words))

    @cached_property
    def _parts(self) -> Mapping[str, np.ndarray]:
        return segments(self.data, self.targets, self._counts, self.learned)

    @cached_property
    def _contents(self) -> sparse.csr_array | None:
        return contents_of(self.words)
