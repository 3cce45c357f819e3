"""A model on its way through time, learned by the same functions as the DAGs' releases."""

import math
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from nearline.sequence import at_microseconds, microseconds
from nearline.settings import settings
from nearline.windows import Window, hour_floor
from training.baselines import decayed_popularity
from training.bundle import Bundle, with_items
from training.dataset import NONE, Interactions
from training.evaluation import Scorer
from training.finetune import link_fresh, nothing_new, popularity, split_hours, with_history
from training.learning import reproducible, warm
from training.lesson import Lesson, NightTime, split_by_time
from training.model import Model, ModelConfig
from training.nightly import new_model
from training.recipe import Learning, load_recipe
from training.replay.clocks import Clock, How, encoded_at
from training.replay.play import OutOfTime
from training.replay.states import ENCODERS, encode_states, known_states
from training.replay.timeline import Timeline
from training.watching import watched_loss

DISTILLED = 1.0
"""Weight of the parent's answers where a size leaves them out."""


class Learned(NamedTuple):
    """What a night came to: its passes, and whether its time ended it before it was done."""

    bundle: Bundle
    passes: float
    cut: bool


def learn_night(timeline: Timeline, moment: int, *, seed: int, stop_at: float) -> Learned:
    """The whole model, learned from what happened in the `history_days` before a moment.

    As the nightly DAG learns it, the held-out slice in the end too, but nothing is measured.
    All of it ends about `stop_at` (time.monotonic seconds). Raises BadInput when there is nothing
    to learn from.
    """
    night, end = NightTime(time.monotonic(), stop_at), at_microseconds(moment)
    since = end - timedelta(days=settings().history_days)
    items = timeline.items_before(moment)
    data = timeline.seen(before=moment, items=items, since=microseconds(since)).data
    vocabulary, catalogue = timeline.vocabulary(items), timeline.catalogue.slice(0, items)
    size = settings().model_size
    recipe = load_recipe(size)
    split = split_by_time(data, Window(hour_floor(since), end))
    with reproducible(seed):
        model = new_model(recipe, vocabulary, catalogue)
        watch = watched_loss(split.watched, recipe.learning)
        lesson = Lesson(model, data, split, recipe.learning, night, seed)
        fitted, watched, held_out = lesson.most(watch=watch), lesson.watched(), lesson.held_out()
    counts = decayed_popularity(data, items=items, now=moment)
    bundle = Bundle(model.eval(), vocabulary, counts, size, recipe.learning)
    return Learned(bundle, fitted.made, fitted.cut or watched.cut or held_out.cut)


def tune(
    timeline: Timeline, bundle: Bundle, window: Window, learning: Learning, *, seed: int
) -> Bundle | None:
    """A model tuned on the events of `window`, as the hourly DAG does; None if nothing is new."""
    start, moment = microseconds(window.start), microseconds(window.end)
    known = len(bundle.vocabulary.item_ids)
    items = max(timeline.items_before(moment), known)
    since = microseconds(with_history(window, timeline.count).start)
    data = timeline.seen(before=moment, items=items, since=since).data
    hours = split_hours(data, window, start)
    if nothing_new(data, hours, window, grew=items > known):
        return None
    vocabulary = timeline.vocabulary(items) if items > known else bundle.vocabulary
    with reproducible(seed):
        model = bundle.model
        if items > known:
            model = with_items(bundle, vocabulary.item_ids, timeline.catalogue.slice(0, items))
        link_fresh(model, data, most=learning.neighbours)
        warm(model, data, hours.new, hours.old, learning, seed=seed)
    counts = popularity(bundle, data, start, moment, items)
    return Bundle(model.eval(), vocabulary, counts, bundle.size, bundle.learning)


def tuning(learning: Learning, how: How) -> Learning:
    """What a fine-tune does, by its name; with as many older events as the size says."""
    changed = {
        "plain": {"replay_ratio": 0.0, "distillation": 0.0},
        "replay": {"distillation": 0.0},
        "distil": {"distillation": learning.distillation or DISTILLED},
    }
    return learning.model_copy(update=changed[how])


@dataclass
class ModelLine:
    """A model that ticks as a clock says. `learned_until` is where what it knows ends.

    After `stop_at` (time.time seconds) it learns no more; a night may last `night_s` seconds.
    """

    timeline: Timeline
    clock: Clock
    seed: int
    bundle: Bundle
    learned_until: int
    stop_at: float = math.inf
    night_s: float = math.inf

    @property
    def items(self) -> int:
        """The items that it can rank: the first ones."""
        return len(self.bundle.vocabulary.item_ids)

    def tick(self, moment: int) -> None:
        """Learn what has happened before a moment, if anything. Raises OutOfTime."""
        if not self.timeline.happened(self.learned_until, moment):
            return
        if self.clock.retrains(moment, self.timeline.start):
            self.bundle = self._night(moment)
        elif self.clock.tuned:
            window = Window(at_microseconds(self.learned_until), at_microseconds(moment))
            learning = tuning(self.bundle.learning, self.clock.how)
            tuned = tune(self.timeline, self.bundle, window, learning, seed=self.seed)
            if tuned is None:
                return
            self.bundle = tuned
        self.learned_until = moment

    def _night(self, moment: int) -> Bundle:
        """The whole model, as long as a night may take.

        One for which less time is left is no night that anybody would have.
        """
        allowed = min(60 * settings().max_train_minutes, self.night_s)
        left = self.stop_at - time.time()
        stop_at = time.monotonic() + min(allowed, left)
        learned = learn_night(self.timeline, moment, seed=self.seed, stop_at=stop_at)
        if left < allowed and learned.cut:
            raise OutOfTime
        return learned.bundle

    def scorer(self, state: str, encoder: str, data: Interactions) -> Scorer:
        """Answers from the state that was made when its clock said; the popular for strangers.

        `data` must hold items that the model knows, and no others.
        """
        model = self.bundle.model
        encode, matrix = ENCODERS[encoder](model), model.item_matrix().detach().numpy()

        def score(targets: np.ndarray) -> np.ndarray:
            moments = encoded_at(state, data.times[targets], self.timeline.start)
            states = known_states(data, targets, moments)
            known = states != NONE
            scores = np.repeat(self.bundle.popularity[None, :], len(targets), axis=0)
            if known.any():
                length = model.config.length
                vectors = encode_states(encode, data, states[known], moments[known], length=length)
                scores[known] = vectors @ matrix.T
            return scores

        return score

    def save(self, path: Path) -> None:
        """Write what `kept` needs."""
        model = self.bundle.model
        kept = {
            "config": vars(model.config),
            "weights": model.state_dict(),
            "popularity": torch.from_numpy(self.bundle.popularity),
            "size": self.bundle.size,
            "learned_until": self.learned_until,
        }
        torch.save(kept, path)

    @classmethod
    def kept(
        cls,
        path: Path,
        timeline: Timeline,
        clock: Clock,
        *,
        seed: int,
        stop_at: float = math.inf,
        night_s: float = math.inf,
    ) -> "ModelLine":
        """A line that goes on from a file that `save` wrote."""
        kept: dict[str, Any] = torch.load(path, weights_only=True)
        model, size = Model.restored(ModelConfig(**kept["config"]), kept["weights"]), kept["size"]
        vocabulary = timeline.vocabulary(model.config.items)
        counts, learning = kept["popularity"].numpy(), load_recipe(size).learning
        bundle = Bundle(model.eval(), vocabulary, counts, size, learning)
        return cls(timeline, clock, seed, bundle, kept["learned_until"], stop_at, night_s)
