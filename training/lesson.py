"""What a night teaches a model, in three parts, and the time that each part may take."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nearline.errors import BadInput
from nearline.windows import Window
from training.dataset import Interactions, cut_time
from training.learning import Fitted, Warmed, fit, warm
from training.model import Model
from training.neighbours import neighbours
from training.recipe import Learning
from training.watching import Watch

HELD_OUT = 0.1
"""Share of the events, the newest ones, that the model is measured on before it learns them."""

WATCHED = 0.05
"""Share of the rest, the newest again, that tells when to stop."""

WATCHED_TIME, HELD_OUT_TIME = 0.07, 0.13
"""Shares of a night's time that are kept for learning the watched and the held-out events."""


@dataclass(frozen=True)
class Split:
    """Targets in the order of time, and where the held-out slice begins (microseconds)."""

    learned: np.ndarray
    watched: np.ndarray
    held_out: np.ndarray
    cut: int

    @property
    def earlier(self) -> np.ndarray:
        """What is learned before the held-out slice is asked for."""
        return np.concatenate([self.learned, self.watched])


def split_by_time(data: Interactions, window: Window) -> Split:
    """The newest events held out, the newest of the rest watched.

    Raises BadInput when nothing is left to learn from.
    """
    if len(data) == 0:
        raise BadInput(
            f"nothing to learn from: no event in {window} is about an item of the catalogue; "
            "load events and items that belong together"
        )
    cut = cut_time(data.times, HELD_OUT)
    rest = data.times[data.times < cut]
    early = cut_time(rest, WATCHED) if len(rest) else cut
    learned = data.targets(before=early)
    if len(learned) == 0:
        raise BadInput(
            f"nothing to learn from in {window}: among {len(data)} events of "
            f"{len(data.user_ids)} users none follows an earlier event of the same user; "
            "take a longer window"
        )
    return Split(learned, data.targets(since=early, before=cut), data.targets(since=cut), cut)


@dataclass(frozen=True)
class NightTime:
    """From when until when a night may learn (time.monotonic seconds).

    Each part ends early enough to leave the later ones their shares. Measuring, which comes between
    the parts, takes from no part: each has its own share in any case.
    """

    begin: float
    end: float

    def for_most(self) -> float:
        """When what is before the watched events has to be learned."""
        return self._until(own=0.0, later=WATCHED_TIME + HELD_OUT_TIME)

    def for_watched(self) -> float:
        """When the watched events have to be learned; asked for as they begin to be."""
        return self._until(own=WATCHED_TIME, later=HELD_OUT_TIME)

    def for_held_out(self) -> float:
        """When the held-out events have to be learned; asked for as they begin to be."""
        return self._until(own=HELD_OUT_TIME, later=0.0)

    def _until(self, *, own: float, later: float) -> float:
        whole = self.end - self.begin
        return max(self.end - later * whole, time.monotonic() + own * whole)


@dataclass(frozen=True)
class Lesson:
    """A model and the events that it learns in a night, to be learned in the order of time."""

    model: Model
    data: Interactions
    split: Split
    learning: Learning
    night: NightTime
    seed: int

    def most(self, *, watch: Watch | None, checkpoint: Path | None = None) -> Fitted:
        """Learn what is before the watched events.

        With a file as `checkpoint`, a night that was killed goes on after its last whole pass.
        """
        model, learned = self.model, self.split.learned
        items, most = model.config.items, self.learning.neighbours
        model.item_tower.link(neighbours(self.data, learned, items=items, most=most))
        return fit(
            model,
            self.data,
            learned,
            self.learning,
            watch=watch,
            seed=self.seed,
            stop_at=self.night.for_most(),
            checkpoint=checkpoint,
        )

    def watched(self) -> Warmed:
        """Learn what told when to stop."""
        return self._warm(self.split.watched, self.split.learned, self.night.for_watched())

    def held_out(self) -> Warmed:
        """Learn the newest slice, once the model was measured on it."""
        return self._warm(self.split.held_out, self.split.earlier, self.night.for_held_out())

    def _warm(self, new: np.ndarray, before: np.ndarray, stop_at: float) -> Warmed:
        told = (self.model, self.data, new, before, self.learning)
        return warm(*told, seed=self.seed, stop_at=stop_at)
