"""Sessions in consecutive periods: what a model keeps that learns one period after the other.

The protocol of Mi et al. 2020, ADER: Adaptively Distilled Exemplar Replay towards Continual
Learning for Session-based Recommendation. A model that has learned the periods before one foresees
each next item of its sessions, among all items seen so far; items may come again. Clicks on items
that no earlier period has are dropped first, and sessions of one click with them. Then it learns
the period.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from nearline.errors import BadInput
from nearline.locks import alone_in
from nearline.replacing import replacing
from training.dataset import NONE, Interactions, arranged
from training.evaluation import interval, model_scorer, plain_ranks
from training.learning import fit, in_turn, reproducible
from training.model import Model, ModelConfig, rearranged
from training.neighbours import neighbours
from training.protocols import new_model
from training.recipe import Recipe
from training.replay.models import DISTILLED
from training.replay.store import Parts, Piece, readable
from training.sequences import text_of
from training.teacher import Compared, Loss, Parent, asked_for, batch_loss

METHODS = ("finetune", "replay", "distil", "joint")
"""The cheap ones first: plain, with older sessions, with the parent's answers to them, from scratch
on everything."""

PROTOCOL = (
    "A model that has learned the periods before one ranks each next item of its sessions among "
    "all items of those periods, none left out; means over periods. Methods are compared on "
    "periods that both have foreseen, without the first one: there all are the same model, which "
    "has learned the period before it from scratch"
)

TOP = 20

_DIGITS = 18
"""Longer numbers may not fit 64 bits."""

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
        if len(words) != 3 or not all(w.isdecimal() and len(w) <= _DIGITS for w in words):
            raise BadInput(
                f"{path}, line {number}: {line[:60]!r} is not `period session item`, "
                f"three whole numbers of at most {_DIGITS} digits"
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
    with alone_in(folder):
        stop_at = time.monotonic() + 60 * max_minutes
        periods = np.unique(sessions.periods).tolist()
        lines = {name: Continual(sessions, name, recipe, seed=seed) for name in methods}
        parts = {name: Parts(folder / name) for name in methods}
        done = {name: begun_before(lines[name], parts[name]) for name in methods}
        left = [
            (period, name)
            for period in periods
            for name in METHODS
            if name in methods and (done[name] is None or period > done[name])
        ]
        for period, name in tqdm(left, unit="period", disable=None):
            if time.monotonic() > stop_at:
                break
            if period == periods[0]:
                begin(lines[name], parts[name], period, folder / "first.line")
            else:
                play_period(lines[name], parts[name], period)
        return report_periods(sessions, parts, periods, seed=seed)


def begun_before(line: Continual, parts: Parts) -> int | None:
    """Let a method be as it was when its last finished period ended, and tell which; None before.

    Where a kept file cannot be read the method begins anew.
    """
    found = parts.check(line.restore)
    return found[0] if found else None


def begin(line: Continual, parts: Parts, period: int, first: Path) -> None:
    """Learn the first period, or take the model in `first` that another method began with."""

    def taken() -> bool:
        line.restore(first)
        return True

    began = time.process_time()
    if not readable(first, taken):
        line.learn(period)
        with replacing(first) as staged:
            line.save(staged)
    seconds = time.process_time() - began
    nothing = Piece(np.zeros((1, 0), np.int32), np.zeros(0, np.int64), seconds, np.zeros(1))
    parts.write(period, nothing, line.save)


def play_period(line: Continual, parts: Parts, period: int) -> None:
    """Foresee a period, learn it, and keep what came of it."""
    began = time.process_time()
    with reproducible(line.seed):
        ranks = line.foresee(period)
    answering, began = time.process_time() - began, time.process_time()
    line.learn(period)
    seconds = time.process_time() - began
    ages = np.zeros(len(ranks), np.int64)
    found = Piece(ranks[None, :].astype(np.int32), ages, seconds, np.array([answering]))
    parts.write(period, found, line.save)


@dataclass(frozen=True)
class Foreseen:
    """What a method foresaw of a period, and how long it then learned it (CPU seconds).

    `hits` and `gains` are recall and reciprocal rank of each event, `whose` its session.
    """

    period: int
    hits: np.ndarray
    gains: np.ndarray
    whose: np.ndarray
    learning: float

    @classmethod
    def of(cls, sessions: Sessions, part: Parts, period: int) -> "Foreseen":
        """A finished period of one method."""
        found, data = part.read(period), sessions.tested(period)
        ranks = found.ranks[0]
        hits, whose = (ranks < TOP).astype(float), data.users[foreseeable(data)]
        return cls(period, hits, np.where(hits > 0, 1 / (ranks + 1.0), 0), whose, found.learning)

    def row(self, seed: int) -> dict[str, Any]:
        """Its figures."""
        return {
            "period": self.period,
            "events": len(self.hits),
            f"recall@{TOP}": round(float(self.hits.mean()), 6),
            "interval": _rounded(interval(self.hits, self.whose, seed=seed)),
            f"mrr@{TOP}": round(float(self.gains.mean()), 6),
            "compute_seconds": round(self.learning, 2),
        }


def report_periods(
    sessions: Sessions, parts: dict[str, Parts], periods: Sequence[int], *, seed: int
) -> dict[str, Any]:
    """Figures of each method and period, and their means.

    `difference` is what a method has over the first one, the cheapest, on the periods that both
    have foreseen; `compared` sets side by side, for each number of periods that some method
    reached, all that reached it, on the same periods.
    """
    found = {
        name: [
            Foreseen.of(sessions, part, period)
            for period in part.numbers()
            if part.read(period).ranks.size
        ]
        for name, part in parts.items()
    }
    first = _cheapest(found)
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
                "periods": len(each),
                **_means(each),
                "difference": {"to": first, **_apart(each, found[first], seed)},
                "by_period": [period.row(seed) for period in each],
            }
            for name, each in found.items()
        ],
        "compared": [
            side_by_side(found, count, seed)
            for count in sorted({len(each) for each in found.values()}, reverse=True)
            if count > 1
        ],
        "cut": [name for name, part in parts.items() if len(part.numbers()) < len(periods)],
    }


def side_by_side(found: Mapping[str, Sequence[Foreseen]], count: int, seed: int) -> dict[str, Any]:
    """Figures of all methods that foresaw `count` periods, on these, without the first of them."""
    there = {name: each[:count] for name, each in found.items() if len(each) >= count}
    first = _cheapest(there)
    return {
        "periods": count,
        "to": first,
        "methods": [
            {"name": name, **_means(each[1:]), "difference": _apart(each, there[first], seed)}
            for name, each in there.items()
        ],
    }


def _cheapest(found: Mapping[str, Sequence[Foreseen]]) -> str:
    return min(found, key=METHODS.index)


def _means(found: Sequence[Foreseen]) -> dict[str, float | None]:
    """The mean over periods, as the protocol has it; the cost, without the first, is a sum."""
    return {
        f"recall@{TOP}": _mean([float(period.hits.mean()) for period in found]),
        f"mrr@{TOP}": _mean([float(period.gains.mean()) for period in found]),
        "compute_seconds": round(sum(period.learning for period in found), 2),
    }


def _apart(ours: Sequence[Foreseen], theirs: Sequence[Foreseen], seed: int) -> dict[str, Any]:
    """Mean differences over the periods of both, with 95 % intervals; sessions drawn in pairs.

    Without the first period, in which both are the same model; nothing where that is all there is.
    """
    both = min(len(ours), len(theirs))
    ours, theirs = ours[1:both], theirs[1:both]
    if not ours:
        return {}
    whose = np.concatenate([period.whose for period in ours])
    # Each period counts alike, however many events it has.
    sizes = [len(period.hits) for period in ours]
    weights = np.repeat([len(whose) / (len(ours) * size) for size in sizes], sizes)
    told: dict[str, Any] = {"periods": len(ours)}
    for name, of in (("recall", "hits"), ("mrr", "gains")):
        mine, other = (np.concatenate([getattr(p, of) for p in each]) for each in (ours, theirs))
        apart = weights * (mine - other)
        told[f"{name}@{TOP}"] = round(float(apart.mean()), 6)
        told[f"{name}_interval"] = _rounded(interval(apart, whose, seed=seed))
    return told


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 6) if values else None


def _rounded(edges: tuple[float, float]) -> list[float]:
    return [round(edge, 6) for edge in edges]
