"""Sessions in consecutive periods: what a model keeps that learns one period after the other.

The protocol of Mi et al. 2020, ADER: Adaptively Distilled Exemplar Replay towards Continual
Learning for Session-based Recommendation. A model that has learned the periods before one foresees
each next item of its sessions, among all items seen so far; items may come again. Clicks on items
that no earlier period has are dropped first, and sessions of one click with them. Then it learns
the period.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from nearline.errors import BadInput
from training.dataset import NONE, Interactions, arranged
from training.evaluation import interval, model_scorer, plain_ranks
from training.learning import fit, in_turn, reproducible
from training.model import Model, ModelConfig, rearranged
from training.neighbours import neighbours
from training.protocols import new_model
from training.recipe import Recipe
from training.replay.models import DISTILLED
from training.replay.store import Day, Parts
from training.sequences import text_of
from training.teacher import Compared, Loss, Parent, asked_for, batch_loss

METHODS = ("finetune", "replay", "distil", "joint")
"""The cheap ones first: plain, with older sessions, with the parent's answers to them, from scratch
on everything."""

PROTOCOL = (
    "A model that has learned the periods before one ranks each next item of its sessions among "
    "all items of those periods, none left out; means over periods"
)

TOP = 20
EPOCHS = 3
"""Passes over a period that a model goes on to learn."""

FIRST_EPOCHS = 8
"""Passes from scratch: nothing is held back that could tell when to stop."""

REPEATED = 1.25
"""Older events that each of these passes repeats, for each new one."""


@dataclass(frozen=True)
class Sessions:
    """Clicks by period and session: parallel int64 arrays; `items` count from 0 by first period."""

    periods: np.ndarray
    sessions: np.ndarray
    items: np.ndarray

    def known(self, period: int) -> int:
        """Items that the periods before one have: the first ones."""
        earlier = self.items[self.periods < period]
        return int(earlier.max(initial=-1)) + 1

    def part(self, wanted: np.ndarray) -> Interactions:
        """Some clicks (bool) as events a microsecond apart; targets are those that follow one."""
        sessions, items = self.sessions[wanted], self.items[wanted] + 1
        ones, times = np.ones(len(items), np.int64), np.arange(len(items))
        return arranged((), sessions, items, ones, times, 0 * ones, ones.astype(bool))

    def tested(self, period: int) -> Interactions:
        """The sessions of a period, without clicks on unknown items."""
        return self.part((self.periods == period) & (self.items < self.known(period)))


def read_periods(path: Path) -> Sessions:
    """Lines `period session item`, whole numbers; may be packed as .xz.

    A session's lines keep their order. Raises BadInput, with the line, for a malformed file.
    """
    rows = []
    for number, line in enumerate(text_of(path).splitlines(), start=1):
        words = line.split()
        if len(words) != 3 or not all(word.isdecimal() for word in words):
            raise BadInput(
                f"{path}, line {number}: {line[:60]!r} is not `period session item`, "
                "three whole numbers"
            )
        rows.append(words)
    if len({row[0] for row in rows}) < 2:
        raise BadInput(f"{path} has fewer than two periods: nothing can be learned before another")
    columns = np.array(rows, dtype=np.int64)
    columns = columns[np.lexsort((columns[:, 1], columns[:, 0]))]
    periods, named, items = columns.T
    sessions = np.unique(np.stack([periods, named]), axis=1, return_inverse=True)[1].reshape(-1)
    _, first, which = np.unique(items, return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first, kind="stable"), kind="stable")
    return Sessions(periods, sessions, place[which])


def foreseeable(data: Interactions) -> np.ndarray:
    """Positions of all clicks but each session's first."""
    return np.flatnonzero(data.states != NONE)


def grown(model: Model, items: int) -> Model:
    """The same model with rows for new items, which all begin alike."""
    rows = torch.arange(items)
    rows[model.config.items :] = -1
    return rearranged(model, rows, torch.ones((items, 1), dtype=torch.int64))


class Continual:
    """A model that learns period after period by one method."""

    def __init__(self, sessions: Sessions, method: str, recipe: Recipe, *, seed: int) -> None:
        self.sessions, self.method, self.seed = sessions, method, seed
        self.recipe = recipe.model_copy(
            update={"model": recipe.model.model_copy(update={"id_dropout": 0.0})}
        )
        self.model: Model | None = None

    def learn(self, period: int) -> None:
        """Learn a period, with the items that it brings."""
        items, learning = self.sessions.known(period + 1), self.recipe.learning
        data = self.sessions.part(self.sessions.periods <= period)
        targets = foreseeable(data)
        loss: Loss = batch_loss
        passes = [targets] * FIRST_EPOCHS
        with reproducible(self.seed):
            if self.model is None or self.method == "joint":
                self.model = new_model(self.recipe.model, np.ones((items, 1), dtype=np.int64))
            else:
                self.model = grown(self.model, items)
                passes, loss = self._mixed(self.model, data, targets, period)
            graph = neighbours(data, targets, items=items, most=learning.neighbours)
            self.model.item_tower.link(graph)
            fit(
                self.model,
                data,
                targets,
                learning,
                watch=None,
                seed=self.seed,
                loss=loss,
                passes=passes,
            )

    def _mixed(
        self, model: Model, data: Interactions, targets: np.ndarray, period: int
    ) -> tuple[list[np.ndarray], Loss]:
        """The period's targets, with what the method adds to them, and what a step goes down.

        Each pass repeats other older sessions: what keeps a model from forgetting is how many of
        them it meets again, not how often. A softmax compares the items that targets ask for alone:
        of the rest each step would learn that nobody wants them.
        """
        cut = int((self.sessions.periods < period).sum())
        new, old = targets[targets >= cut], targets[targets < cut]
        if self.method == "finetune":
            return [new] * EPOCHS, batch_loss
        rng = np.random.default_rng([self.seed, period])
        repeated = in_turn(data, old, int(REPEATED * len(new)), EPOCHS, rng)
        weight = self.recipe.learning.distillation or DISTILLED
        loss = batch_loss if self.method == "replay" else Parent(model, old, weight).loss
        passes = [np.concatenate([some, new]) for some in repeated]
        among = asked_for(model, data, np.concatenate(passes))
        return passes, partial(loss, compared=Compared(among))

    def foresee(self, period: int) -> np.ndarray:
        """Ranks (from 0) of the next items of a period's sessions."""
        assert self.model is not None
        data = self.sessions.tested(period)
        targets = foreseeable(data)
        score = model_scorer(self.model, data)
        return plain_ranks(score, data, targets, items=self.model.config.items)

    def save(self, path: Path) -> None:
        """Write what `restore` needs."""
        assert self.model is not None
        kept = {"config": vars(self.model.config), "weights": self.model.state_dict()}
        torch.save(kept, path)

    def restore(self, path: Path) -> None:
        """Go on from a file that `save` wrote."""
        kept: dict[str, Any] = torch.load(path, weights_only=True)
        self.model = Model.restored(ModelConfig(**kept["config"]), kept["weights"])


def play_periods(
    sessions: Sessions,
    methods: Sequence[str],
    recipe: Recipe,
    *,
    seed: int,
    max_minutes: float,
    folder: Path,
) -> dict[str, Any]:
    """Play all methods, period by period, until the time is up; finished ones lie in `folder`.

    Returns the report as JSON has it.
    """
    stop_at = time.monotonic() + 60 * max_minutes
    periods = np.unique(sessions.periods).tolist()
    lines = {name: Continual(sessions, name, recipe, seed=seed) for name in methods}
    parts = {name: Parts(folder / name) for name in methods}
    steps = [(period, name) for period in periods for name in METHODS if name in methods]
    for period, name in tqdm(steps, unit="period", disable=None):
        if period in parts[name].days():
            continue
        if time.monotonic() > stop_at:
            break
        if period == periods[0]:
            begin(lines[name], parts[name], period, folder / "first.line")
        else:
            play_period(lines[name], parts[name], period)
    return report_periods(sessions, parts, periods, seed=seed)


def begin(line: Continual, parts: Parts, period: int, first: Path) -> None:
    """Learn the first period, or take the model in `first` that another method began with."""
    began = time.process_time()
    if first.is_file():
        line.restore(first)
    else:
        line.learn(period)
        line.save(first)
    seconds = time.process_time() - began
    nothing = Day(np.zeros((1, 0), np.int32), np.zeros(0, np.int64), seconds, np.zeros(1))
    parts.write(period, nothing, line.save)


def play_period(line: Continual, parts: Parts, period: int) -> None:
    """Foresee a period, learn it, and keep what came of it."""
    if line.model is None:
        line.restore(parts.line(parts.days()[-1]))
    began = time.process_time()
    with reproducible(line.seed):
        ranks = line.foresee(period)
    answering, began = time.process_time() - began, time.process_time()
    line.learn(period)
    seconds = time.process_time() - began
    ages = np.zeros(len(ranks), np.int64)
    found = Day(ranks[None, :].astype(np.int32), ages, seconds, np.array([answering]))
    parts.write(period, found, line.save)


def report_periods(
    sessions: Sessions, parts: dict[str, Parts], periods: Sequence[int], *, seed: int
) -> dict[str, Any]:
    """Figures of each method and period, and their means; differences on the periods of both."""
    rows = {
        name: [_row(sessions, part, p, seed) for p in part.days() if part.read(p).ranks.size]
        for name, part in parts.items()
    }
    shared = min((len(found) for found in rows.values()), default=0)
    return {
        "protocol": PROTOCOL,
        "seed": seed,
        "data": {
            "clicks": len(sessions.items),
            "sessions": int(sessions.sessions.max()) + 1,
            "items": sessions.known(int(periods[-1]) + 1),
            "periods": len(periods) - 1,
        },
        "policies": [
            {
                "name": name,
                "periods": len(found),
                **_means(found),
                "of_shared": {"periods": shared, **_means(found[:shared])},
                "by_period": found,
            }
            for name, found in rows.items()
        ],
        "cut": [name for name, part in parts.items() if len(part.days()) < len(periods)],
    }


def _row(sessions: Sessions, part: Parts, period: int, seed: int) -> dict[str, Any]:
    """One period of one method. Its seconds are those of learning it, once it was foreseen."""
    found = part.read(period)
    ranks, data = found.ranks[0], sessions.tested(period)
    hits = (ranks < TOP).astype(float)
    low, high = interval(hits, data.users[foreseeable(data)], seed=seed)
    return {
        "period": period,
        "events": len(ranks),
        f"recall@{TOP}": round(float(hits.mean()), 6),
        "interval": [round(low, 6), round(high, 6)],
        f"mrr@{TOP}": round(float(np.where(hits > 0, 1 / (ranks + 1.0), 0.0).mean()), 6),
        "compute_seconds": round(found.learning, 2),
    }


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """The mean over periods, as the protocol has it; the cost, without the first, is a sum."""
    names = (f"recall@{TOP}", f"mrr@{TOP}")
    means = {n: round(float(np.mean([row[n] for row in rows])), 6) if rows else None for n in names}
    return means | {"compute_seconds": round(sum(row["compute_seconds"] for row in rows), 2)}
