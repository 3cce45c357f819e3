"""How well a method foresees: each event ranked against the whole catalogue, before it is seen.

Every method is asked the same: given what the user had done before this instant, order all items.
Items that the user had touched are left out, but never the very item that is asked for. Figures
are means over events; intervals are bootstrapped over users, whose events belong together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.dataset import NONE, Interactions, batches, by_lot, touched
from training.device import placed
from training.model import Model, input_table

TOP = 10
OTHER_CUTS = (1, 5, 20)
RESAMPLES = 500

_MOST_DRAWN = 2000
"""More users are drawn in this many groups, of every 2,000th: the interval is as wide, and costs no
more where there are millions."""

LEAST_ASKED = 2000
"""Targets that are asked for in any case, where there are so many."""

Scorer = Callable[[np.ndarray], np.ndarray]
"""Targets (positions) to scores, float32 (targets, items): the higher, the sooner."""

_CHUNK_CELLS = 4_000_000
_ENCODE_TOKENS = 16_384


@dataclass(frozen=True)
class Evaluation:
    """The rank (from 0) that each target got, whose it was, and which items were ever in the top.

    `ranks` and `users` are (targets,), `shown` is bool (items,), `lists` int32 (targets, TOP): the
    best rows, in any order, -1 where there are fewer. `segments` are parts of the targets, by name:
    bool (targets,) each.
    """

    ranks: np.ndarray
    users: np.ndarray
    shown: np.ndarray
    lists: np.ndarray = field(default_factory=lambda: np.zeros((0, TOP), dtype=np.int32))
    segments: Mapping[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def ndcg(self) -> np.ndarray:
        """NDCG@10 of each target; with one relevant item the ideal is 1."""
        return _gain(self.ranks, TOP)

    def metrics(self, *, seed: int) -> dict[str, float]:
        """Figures at each cut, with intervals (95 %), and on how much they rest.

        Then those at 10 of each segment that has targets, with intervals, and how many it has.
        """
        at_ten = self._at(TOP)
        figures = self._told(at_ten, seed) | {"coverage@10": _mean(self.shown)}
        for cut in OTHER_CUTS:
            figures |= self._told(self._at(cut), seed)
        counts = {"targets": float(len(self.ranks)), "users": float(len(np.unique(self.users)))}
        for name, part in self.segments.items():
            counts[f"targets of {name}"] = float(part.sum())
            if part.any():
                told = {f"{figure} of {name}": values[part] for figure, values in at_ten.items()}
                figures |= self.only(part)._told(told, seed)
        return {name: round(value, 6) for name, value in figures.items()} | counts

    def _told(self, values: Mapping[str, np.ndarray], seed: int) -> dict[str, float]:
        """The mean of figures of each target, with its interval."""
        found: dict[str, float] = {}
        for name, each in values.items():
            found |= with_interval(name, each, self.users, seed=seed)
        return found

    def only(self, wanted: np.ndarray) -> "Evaluation":
        """The targets where `wanted` (bool) is true; `shown` stays that of all."""
        parts = {name: part[wanted] for name, part in self.segments.items()}
        lists = self.lists[wanted] if len(self.lists) else self.lists
        return Evaluation(self.ranks[wanted], self.users[wanted], self.shown, lists, parts)

    def _at(self, cut: int) -> dict[str, np.ndarray]:
        """What each target is worth by the lists up to a cut."""
        hits = self.ranks < cut
        mrr = np.where(hits, 1 / (self.ranks + 1.0), 0.0)
        return {f"ndcg@{cut}": _gain(self.ranks, cut), f"recall@{cut}": hits, f"mrr@{cut}": mrr}


def drawn(data: Interactions, targets: np.ndarray, *, items: int, scores: int) -> np.ndarray:
    """All targets, or as many, in their order, as are worth so many scores, targets times items.

    LEAST_ASKED in any case: what a large site measures must not cost more than what it learns. Of
    slices that overlap, such as those of two nights, the same ones are drawn.
    """
    most = max(scores // items, LEAST_ASKED)
    return np.sort(by_lot(data, targets)[:most])


def sample(targets: np.ndarray, most: int, *, seed: int) -> np.ndarray:
    """Some targets, in their order, or all where there are no more."""
    return np.sort(np.random.default_rng(seed).permutation(targets)[:most])


def evaluate(score: Scorer, data: Interactions, targets: np.ndarray, *, items: int) -> Evaluation:
    """Ask a method for every target, and rank what came."""
    ranks = np.zeros(len(targets), dtype=np.int64)
    lists = np.full((len(targets), TOP), NONE, dtype=np.int32)
    step = max(_CHUNK_CELLS // max(items, 1), 1)
    for start in range(0, len(targets), step):
        part = targets[start : start + step]
        scores = np.nan_to_num(score(part), copy=True, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
        wanted = data.items[part] - 1
        own = np.take_along_axis(scores, wanted[:, None], axis=1)
        scores[touched(data, data.states[part])] = -np.inf
        np.put_along_axis(scores, wanted[:, None], own, axis=1)
        ranks[start : start + step] = _ranks(scores, wanted)
        best = _top(scores)
        lists[start : start + step, : best.shape[1]] = best
    shown = np.zeros(items, dtype=bool)
    shown[lists[lists != NONE]] = True
    return Evaluation(ranks, data.users[targets], shown, lists)


def plain_ranks(
    score: Scorer, data: Interactions, targets: np.ndarray, *, items: int
) -> np.ndarray:
    """The rank (from 0) of each target where items may come again: nothing is left out."""
    ranks = np.zeros(len(targets), dtype=np.int64)
    step = max(_CHUNK_CELLS // max(items, 1), 1)
    for start in range(0, len(targets), step):
        part = targets[start : start + step]
        ranks[start : start + step] = _ranks(score(part), data.items[part] - 1)
    return ranks


def _ranks(scores: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How many items come before the wanted one; of equal scores the lower row comes first."""
    own = np.take_along_axis(scores, wanted[:, None], axis=1)
    before = np.arange(scores.shape[1]) < wanted[:, None]
    ahead: np.ndarray = ((scores > own) | ((scores == own) & before)).sum(axis=1)
    ahead[np.isneginf(own[:, 0])] = scores.shape[1]
    return ahead


def _top(scores: np.ndarray) -> np.ndarray:
    """The best rows of each target, in any order; NONE where there are fewer."""
    count = min(TOP, scores.shape[1])
    best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    finite = np.isfinite(np.take_along_axis(scores, best, axis=1))
    return np.where(finite, best, NONE)


def _gain(ranks: np.ndarray, cut: int) -> np.ndarray:
    gain: np.ndarray = np.where(ranks < cut, 1 / np.log2(ranks + 2.0), 0.0)
    return gain


def interval(
    values: np.ndarray, users: np.ndarray, *, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Bootstrap interval of the mean of `values`, users drawn with replacement; (0, 0) of none."""
    if len(values) == 0:
        return 0.0, 0.0
    number = np.unique(users, return_inverse=True)[1] % _MOST_DRAWN
    sums, counts = np.bincount(number, values), np.bincount(number)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=RESAMPLES)
    means = (drawn @ sums) / (drawn @ counts)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def with_interval(
    name: str, values: np.ndarray, users: np.ndarray, *, seed: int
) -> dict[str, float]:
    """The mean of `values` by its name, and its interval as `name_low` and `name_high`."""
    low, high = interval(values, users, seed=seed)
    return {name: _mean(values), f"{name}_low": low, f"{name}_high": high}


def measure(model: Model, data: Interactions, targets: np.ndarray) -> Evaluation:
    """The model as served, asked for each target."""
    return evaluate(model_scorer(model, data), data, targets, items=model.config.items)


@torch.no_grad()
def model_scorer(model: Model, data: Interactions) -> Scorer:
    """The model as served: each target's user encoded from the newest events before it."""
    vectors = model.eval().item_tower()
    matrix = F.normalize(vectors, dim=-1).cpu().numpy()

    def score(targets: np.ndarray) -> np.ndarray:
        scores: np.ndarray = encode(model, vectors, data, targets) @ matrix.T
        return scores

    return score


@torch.no_grad()
def encode(model: Model, vectors: Tensor, data: Interactions, targets: np.ndarray) -> np.ndarray:
    """The state that each target is predicted from, float32 (targets, dim), of length 1.

    `vectors` are what the model's item tower gives (items, dim).
    """
    table = input_table(vectors)
    states = np.zeros((len(targets), model.config.dim), dtype=np.float32)
    parts = batches(data, targets, length=model.config.length, stride=1, tokens=_ENCODE_TOKENS)
    for batch in parts:
        items, *told = (placed(column, table.device) for column in batch.inputs)
        found = model.user_encoder(F.embedding(items, table), *told)
        states[batch.order] = found.cpu().numpy()[batch.cells]
    return states


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0
