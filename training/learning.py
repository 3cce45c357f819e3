"""How the model learns: whole by night, warm by the hour."""

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from nearline.errors import StepFailed
from nearline.settings import settings
from training.dataset import Batch, Interactions, batches
from training.losses import catalogue_softmax, distillation, fast_precision
from training.model import Model
from training.recipe import Learning

log = logging.getLogger(__name__)

_CLIP = 1.0
_MOST_ANSWERS = 50_000_000
"""Scores that a step of distillation compares, targets times items: they are all in memory."""

STEPS_A_PASS = 4
"""The least, where there are so many sequences: fewer events make smaller steps, not fewer."""


WARM_UP_STEPS = 100
"""Of the first pass, at most: the rate rises to its full height."""

Tensors = tuple[Tensor, ...] | list[Tensor]
Loss = Callable[[Model, Interactions, Batch], Tensor]


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """The same numbers from the same seed on the same machine; other callers' state is kept.

    Sums depend on how many threads share them: as many as the settings say.
    """
    before, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        # Threads that wait for one another get nowhere on a busy machine: half are left to others.
        torch.set_num_threads(settings().train_threads or max(threads // 2, 1))
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
            torch.set_num_threads(threads)


@dataclass(frozen=True)
class Watch:
    """What tells when to stop: a figure of the model, asked for after each pass."""

    name: str
    figure: Callable[[Model, Interactions], float]
    rises: bool = False

    def better(self, found: float, best: float | None) -> bool:
        """Whether a figure is progress over the best one so far."""
        return best is None or (found > best if self.rises else found < best)


def watched_loss(targets: np.ndarray, learning: Learning) -> Watch | None:
    """The mean loss of targets that are not learned; None without any."""
    if len(targets) == 0:
        return None
    return Watch("loss", lambda model, data: mean_loss(model, data, targets, learning))


def fit(
    model: Model,
    data: Interactions,
    targets: np.ndarray,
    learning: Learning,
    *,
    watch: Watch | None,
    seed: int,
    stop_at: float = math.inf,
    loss: Loss | None = None,
) -> int:
    """Learn `targets` until the watched figure gets no better; keeps the best weights.

    The rate stays constant and the weights are averaged over the newest tenth of the steps or so,
    so that every pass is as good an end as a planned one. The average is what is watched and kept.

    Stops at `stop_at` (time.monotonic seconds) too. `loss` is the batch's own, without another
    one. With nothing to watch the last weights stay.
    Returns the passes made or begun. Raises StepFailed when the loss is no number.
    """
    tokens = min(
        _tokens(model, learning, loss), max(len(targets) // STEPS_A_PASS, model.config.length)
    )
    steps = sum(1 for _ in _batches(model, data, targets, tokens))
    rates = _constant(min(steps, WARM_UP_STEPS))
    teacher = Teacher(model, data, learning.learning_rate, learning.weight_decay, rates, loss)
    average = AveragedModel(model, multi_avg_fn=newest_tenth)
    mean = cast(Model, average.module)
    weights: dict[str, Tensor] = {}
    best, waited = None, 0
    with tqdm(total=learning.epochs * steps, unit="step", desc="train", disable=None) as bar:
        for epoch in range(learning.epochs):
            rng = np.random.default_rng([seed, epoch])
            for batch in _batches(model, data, targets, tokens, rng):
                teacher.step(batch)
                average.update_parameters(model)
                bar.update()
                if time.monotonic() > stop_at:
                    break
            if watch is not None:
                figure = watch.figure(mean, data)
                bar.set_postfix(watched=f"{watch.name} {figure:.4f}")
                log.info("pass %d: %s %.4f on what is watched", epoch + 1, watch.name, figure)
                if watch.better(figure, best):
                    weights, best, waited = _copy(mean), figure, 0
                else:
                    waited += 1
            # The average turns slowly in a long training: so its figure is given time.
            patience = max(learning.patience, epoch // 5)
            if waited >= patience or time.monotonic() > stop_at:
                break
    model.load_state_dict(weights or mean.state_dict())
    return epoch + 1


def warm(
    model: Model,
    data: Interactions,
    new: np.ndarray,
    old: np.ndarray,
    learning: Learning,
    *,
    seed: int,
) -> int:
    """Go on learning from `new` targets, mixed with whole users drawn from the `old` ones.

    What the model answered to the old ones before, its parent's answers, holds it back: with the
    weight `distillation`. One pass, and at most `warm_steps` steps; returns the steps made. More
    passes at a higher rate fit the few users of some hours, and foresee the next hours worse than
    no fine-tune does.
    """
    if len(new) == 0:
        return 0
    rng = np.random.default_rng([seed, len(new)])
    repeated = replay(data, old, int(learning.replay_ratio * len(new)), rng)
    mixed = np.concatenate([new, repeated])
    loss: Loss = batch_loss
    if learning.distillation and len(repeated):
        loss = Parent(model, repeated, learning.distillation).loss
    tokens = _tokens(model, learning, loss)
    parts = list(_batches(model, data, mixed, tokens, rng))[: learning.warm_steps]
    # Adam steps as far for ten events as for thousands: a step counts for as much as it has seen.
    rate = learning.warm_learning_rate * min(len(mixed) / learning.batch_tokens, 1.0)
    rates = _cosine(len(parts))
    teacher = Teacher(model, data, rate, learning.weight_decay, rates, loss)
    for batch in parts:
        teacher.step(batch)
    return len(parts)


def replay(data: Interactions, old: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """About `count` of the `old` targets: those of whole users, drawn at random."""
    users, sizes = np.unique(data.users[old], return_counts=True)
    drawn = rng.permutation(len(users))
    enough = int(np.searchsorted(np.cumsum(sizes[drawn]), count)) + 1 if count else 0
    chosen: np.ndarray = old[np.isin(data.users[old], users[drawn[:enough]])]
    return chosen


class Teacher:
    """AdamW with a schedule: `rates` gives the share of `rate` that a step takes.

    `loss` is what a step goes down.
    """

    def __init__(
        self,
        model: Model,
        data: Interactions,
        rate: float,
        weight_decay: float,
        rates: Callable[[int], float],
        loss: Loss | None = None,
    ) -> None:
        self.model, self.data, self.loss = model, data, loss or batch_loss
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=rate, weight_decay=weight_decay, betas=(0.9, 0.98), fused=True
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, rates)

    def step(self, batch: Batch) -> None:
        """One step down. Raises StepFailed when the loss is no number any more."""
        self.model.train()
        loss = self.loss(self.model, self.data, batch)
        if not torch.isfinite(loss):
            raise StepFailed(
                f"the loss became {loss.item()}: the learning rate is too high for these data; "
                "nothing was published"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP)
        self.optimizer.step()
        self.schedule.step()


def batch_loss(model: Model, data: Interactions, batch: Batch) -> Tensor:
    """The loss of a batch's targets."""
    return _loss(model, data, batch, *_answers(model, batch))


def _answers(model: Model, batch: Batch) -> tuple[Tensor, Tensor]:
    """The states that the batch's targets are predicted from (P, D), and the items (N, D)."""
    states, matrix = model(*(torch.from_numpy(column) for column in batch.inputs))
    rows, columns = (torch.from_numpy(cell) for cell in batch.cells)
    return states[rows, columns], matrix


def _loss(model: Model, data: Interactions, batch: Batch, states: Tensor, matrix: Tensor) -> Tensor:
    wanted = torch.from_numpy(data.items[batch.targets] - 1)
    return catalogue_softmax(
        states,
        matrix,
        wanted,
        temperature=model.config.temperature,
        precision=fast_precision(matrix.device),
    )


class Parent:
    """A model as it was before it went on learning, whose answers to old targets are kept up."""

    def __init__(self, model: Model, old: np.ndarray, weight: float) -> None:
        self.model, self.old, self.weight = copy.deepcopy(model).eval(), old, weight

    def loss(self, model: Model, data: Interactions, batch: Batch) -> Tensor:
        """The loss of a batch's targets, and `weight` times how far its old ones have moved."""
        states, matrix = _answers(model, batch)
        loss = _loss(model, data, batch, states, matrix)
        old = torch.from_numpy(np.flatnonzero(np.isin(batch.targets, self.old)))
        if len(old) == 0:
            return loss
        with torch.no_grad():
            kept, items = _answers(self.model, batch)
        temperature = model.config.temperature
        moved = distillation(states[old], matrix, kept[old], items, temperature=temperature)
        return loss + self.weight * len(old) / len(states) * moved


@torch.no_grad()
def mean_loss(model: Model, data: Interactions, targets: np.ndarray, learning: Learning) -> float:
    """The mean loss over `targets`; 0 without any."""
    model.eval()
    total = 0.0
    for batch in _batches(model, data, targets, learning.batch_tokens):
        total += batch_loss(model, data, batch).item() * len(batch.targets)
    return total / max(len(targets), 1)


def _batches(
    model: Model,
    data: Interactions,
    targets: np.ndarray,
    tokens: int,
    rng: np.random.Generator | None = None,
) -> Iterator[Batch]:
    """Half-overlapping sequences: every state has read at least half of what the model can read."""
    length = model.config.length
    return batches(data, targets, length=length, stride=length // 2, tokens=tokens, rng=rng)


def _tokens(model: Model, learning: Learning, loss: Loss | None) -> int:
    """Events of a step; fewer where another loss holds the scores of all its targets at once."""
    if loss in (None, batch_loss):
        return learning.batch_tokens
    return min(learning.batch_tokens, max(_MOST_ANSWERS // model.config.items, model.config.length))


def newest_tenth(average: Tensors, weights: Tensors, steps: Tensor | int) -> None:
    """Polynomial-decay averaging (Shamir & Zhang 2013, section 4, with eta = 9)."""
    share = float(10 / (steps + 10))
    for mean, newest in zip(average, weights, strict=True):
        mean.lerp_(newest, share)


def _constant(warm_up: int) -> Callable[[int], float]:
    return lambda step: min((step + 1) / max(warm_up, 1), 1.0)


def _cosine(steps: int) -> Callable[[int], float]:
    warm_up = max(steps // 20, 1)

    def share(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1)))

    return share


def _copy(model: Model) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}
