"""The model judged as papers judge: on anyone's sequences, without lake or releases.

Leave-one-out: of each user's items the last is the test, the one before it the validation, and the
rest is learned. The model is trained until NDCG@10 of the validation items gets no better, and
keeps the weights that were best there. At the test the validation item is part of the history.

Every item of the file is ranked. Items that the user has touched before are left out of the
ranking; the item that is asked for never is, even where the user had touched it before.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nearline.console import progress
from nearline.errors import BadInput
from nearline.settings import settings
from training.checkpoint import key_of
from training.dataset import NONE, Interactions, last_events
from training.evaluation import Evaluation, measure, model_scorer, sample
from training.exam import Exam
from training.learning import Ending, fit, reproducible
from training.memory import within_memory
from training.model import Model, ModelConfig
from training.neighbours import neighbours
from training.recipe import Recipe, Shape
from training.sequences import as_interactions, attribute_ids, vocabulary_of
from training.together import leave_the_rest_to_the_leader
from training.tracking import tracked
from training.watching import Watch

PATIENCE = 5
"""Passes without progress that end a training, at least: what some thousand users are shown tells
less of a pass than the loss of a night's events does."""

MOST_WATCHED = 5000
"""Users whose validation item is ranked after each pass: more say little more, and cost as much."""


@dataclass(frozen=True)
class Split:
    """Positions that are learned, watched and, once, tested; each has something before it."""

    learned: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Judged:
    """A model, the events it is asked about, its figures, and each user's rank behind them.

    `stopped` is what ended its training.
    """

    model: Model
    data: Interactions
    figures: dict[str, float]
    found: Evaluation
    stopped: Ending

    @property
    def users(self) -> list[str]:
        """Whose rank each of `found` is."""
        return [self.data.user_ids[user] for user in self.found.users]


def leave_one_out(data: Interactions) -> Split:
    """The last item of each user, the one before it, and the rest.

    A repeated item counts as any other. Items with nothing before them are only read.
    """
    last = last_events(data.users)
    second = np.append(last[1:], False)[: len(data)] & ~last
    foreseen = data.states != NONE
    parts = (~(last | second), second, last)
    return Split(*(np.flatnonzero(part & foreseen) for part in parts))


def judge_leave_one_out(
    sequences: Mapping[str, Sequence[str]],
    attributes: Mapping[str, Sequence[str]] | None,
    recipe: Recipe,
    *,
    max_minutes: float,
    seed: int,
    name: str,
) -> Judged:
    """Train a model on users' items and tell how well it foresees the last of each.

    Users with one item are left out, and counted as `left_out`. The same seed gives the same
    figures, unless the time runs out; what was killed goes on after the last pass that was kept.
    MLflow is told of it by `name`. Raises BadInput when there is nothing to learn.
    """
    kept = {user: items for user, items in sequences.items() if len(items) > 1}
    if not any(len(items) > 3 for items in kept.values()):
        raise BadInput(
            f"nothing to learn: none of {len(sequences)} users has four items, "
            "two to learn from, one for validation and one for the test"
        )
    vocabulary = vocabulary_of(kept)
    data = as_interactions(kept, vocabulary)
    split = leave_one_out(data)
    content = attribute_ids(attributes, vocabulary, buckets=recipe.model.content_buckets)
    following = tracked("evaluate", name, seed=seed, **recipe.flat())
    # Two trainings that run side by side have a file each.
    told = f"{name} {recipe.model_dump_json()} {seed}"
    file = settings().home / "evaluate" / f"{key_of(told, data.items, content)[:16]}.pt"
    with reproducible(seed), within_memory(), following as run:
        model = new_model(recipe.model, content)
        most = recipe.learning.neighbours
        model.item_tower.link(neighbours(data, split.learned, items=len(content), most=most))
        watch = run.watched(watched_ndcg(split.validation, seed=seed))
        patience = max(recipe.learning.patience, PATIENCE)
        fitted = fit(
            model,
            data,
            split.learned,
            recipe.learning.model_copy(update={"patience": patience}),
            watch=watch,
            seed=seed,
            stop_at=time.monotonic() + 60 * max_minutes,
            checkpoint=file,
        )
        leave_the_rest_to_the_leader()
        with progress(f"test: rank {len(content)} items for {len(split.test)} users"):
            exam = Exam(data, split.test, split.learned, content)
            found = exam.ask(model_scorer(model, data))
        metrics = exam.told(found, seed=seed)
        metrics.pop("targets")
        counts = {"users": len(kept), "items": len(content), "left_out": len(sequences) - len(kept)}
        took = {"epochs": fitted.passes, "train_seconds": round(fitted.seconds, 2)}
        figures = metrics | counts | took
        run.note(figures=figures)
        return Judged(model, data, figures, found, fitted.stopped)


def new_model(shape: Shape, content: np.ndarray) -> Model:
    """A model that has learned nothing, for the items of `content` (items, width)."""
    sizes = shape.model_dump()
    if not content.any():
        sizes["id_dropout"] = 0.0  # there is nothing that could stand for an id
    config = ModelConfig(items=len(content), types=1, content_width=content.shape[1], **sizes)
    return Model(config, torch.from_numpy(content))


def watched_ndcg(validation: np.ndarray, *, seed: int) -> Watch:
    """NDCG@10 of the validation items, of a sample of users where there are many."""
    watched = sample(validation, MOST_WATCHED, seed=seed)
    return Watch(
        "ndcg@10", lambda model, data: float(measure(model, data, watched).ndcg.mean()), rises=True
    )
