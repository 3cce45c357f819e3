"""One step after another: the loss of a batch, the optimizer, and the average of the weights."""

import copy
import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from nearline.errors import StepFailed
from training.dataset import Batch, Interactions, batch_count, batches
from training.device import device_of, placed
from training.losses import Answers, catalogue_softmax, fast_precision
from training.model import Model
from training.together import mean_of_all

_CLIP = 1.0

Tensors = tuple[Tensor, ...] | list[Tensor]
Loss = Callable[[Model, Interactions, Batch], Tensor]


class Compared(NamedTuple):
    """Which items the targets of a step are compared with.

    `rows` (R,), int64 and ascending, are the items that the step reads; without it, all. `among`,
    (R,) or (N,), says how often each counts: all once without it.
    """

    among: Tensor | None
    rows: Tensor | None = None


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
        loss: Loss,
    ) -> None:
        self.model, self.data, self.loss = model, data, loss
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=rate, weight_decay=weight_decay, betas=(0.9, 0.98), fused=True
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, rates)

    def step(self, batch: Batch | None) -> None:
        """One step down, of other processes' batches too where several learn together.

        Without a batch, of theirs alone. Raises StepFailed when the loss is no number any more.
        """
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss, targets = torch.zeros((), device=device_of(self.model)), 0
        if batch is not None:
            loss, targets = self.loss(self.model, self.data, batch), len(batch.targets)
            loss.backward()
        loss = mean_of_all(list(self.model.parameters()), loss, targets)
        if not torch.isfinite(loss):
            raise StepFailed(
                f"the loss became {loss.item()}: the learning rate is too high for these data; "
                "nothing was published"
            )
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP)
        self.optimizer.step()
        self.schedule.step()


def asked_for(model: Model, data: Interactions, targets: np.ndarray) -> Tensor:
    """The items that some targets ask for: bool (items,)."""
    asked = np.zeros(model.config.items, dtype=bool)
    asked[data.items[targets] - 1] = True
    return torch.from_numpy(asked)


def batch_loss(
    model: Model,
    data: Interactions,
    batch: Batch,
    *,
    compared: Compared | None = None,
    answers: Answers | None = None,
) -> Tensor:
    """The loss of a batch's targets, `compared` with some items; without it, all that are touched.

    Of the others no step must learn that nobody wants them: nobody could. `answers` are another
    model's, to be learned too.
    """
    compared = compared or Compared(model.item_tower.touched)
    return plain_loss(model, data, batch, compared=compared, answers=answers)


def _answers(
    model: Model, batch: Batch, rows: Tensor | None = None, vectors: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The states that the batch's targets are predicted from (P, D), and the items.

    These are all (N, D), or some rows (R, D); `vectors` are what the item tower says of them.
    """
    device = device_of(model)
    inputs = (placed(column, device) for column in batch.inputs)
    # A GPU multiplies bfloat16 many times faster; norms, and all that is returned, are float32.
    with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
        rows = None if rows is None else rows.to(device)
        states, matrix = model(*inputs, rows=rows, vectors=vectors)
    places, columns = (placed(cell, device) for cell in batch.cells)
    return states[places, columns], matrix


def plain_loss(
    model: Model,
    data: Interactions,
    batch: Batch,
    *,
    compared: Compared | None = None,
    answers: Answers | None = None,
    vectors: Tensor | None = None,
) -> Tensor:
    """The loss of a batch's targets, `compared` with some items; without it, all there are.

    `vectors` are what the item tower says of these, where that is known.
    """
    among, rows = compared or Compared(None)
    states, matrix = _answers(model, batch, rows, vectors)
    targets = torch.from_numpy(data.items[batch.targets] - 1)
    if rows is not None:
        targets = torch.searchsorted(rows, targets)
    return catalogue_softmax(
        states,
        matrix,
        targets.to(matrix.device),
        temperature=model.config.temperature,
        precision=fast_precision(matrix.device),
        among=None if among is None else among.to(matrix.device),
        answers=answers,
    )


class Parent:
    """A model as it was before it went on learning, whose answers to old targets are kept up."""

    def __init__(self, model: Model, old: np.ndarray, weight: float) -> None:
        self.model, self.old, self.weight = copy.deepcopy(model).eval(), old, weight

    def loss(
        self, model: Model, data: Interactions, batch: Batch, *, compared: Compared | None = None
    ) -> Tensor:
        """What `batch_loss` is, and `weight` times how far the model is from these answers."""
        rows = compared.rows if compared else None
        told = self._told(batch, rows, device_of(model))
        return batch_loss(model, data, batch, compared=compared, answers=told)

    @cached_property
    def _vectors(self) -> Tensor:
        return self.model.item_tower()

    @torch.no_grad()
    def _told(self, batch: Batch, rows: Tensor | None, device: torch.device) -> Answers | None:
        """The answers to a batch; None where it has no old target."""
        old = np.isin(batch.targets, self.old)
        if not old.any():
            return None
        model = self.model.to(device)
        states, matrix = _answers(model, batch, rows, self._vectors if rows is None else None)
        weights = self.weight * old.astype(np.float32)
        return Answers(states / self.model.config.temperature, matrix, placed(weights, device))


def training_batches(
    model: Model,
    data: Interactions,
    targets: np.ndarray,
    tokens: int,
    rng: np.random.Generator | None = None,
) -> Iterator[Batch]:
    """Half-overlapping sequences: every state has read at least half of what the model can read."""
    length = model.config.length
    return batches(data, targets, length=length, stride=length // 2, tokens=tokens, rng=rng)


def training_steps(model: Model, data: Interactions, targets: np.ndarray, tokens: int) -> int:
    """How many batches `training_batches` makes of these."""
    length = model.config.length
    return batch_count(data, targets, length=length, stride=length // 2, tokens=tokens)


class Course:
    """A training on its way: all that a pass changes."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self.average = AveragedModel(teacher.model, multi_avg_fn=newest_tenth)
        self.mean = cast(Model, self.average.module)
        self.passes = self.waited = 0
        self.seconds = 0.0
        self.best: float | None = None
        self.weights: dict[str, Tensor] = {}

    def step(self, batch: Batch | None) -> None:
        """One step, and its share in the average."""
        self.teacher.step(batch)
        self.average.update_parameters(self.teacher.model)

    def tell(self, figure: float, *, better: bool) -> None:
        """Keep the average where its figure is better than the best one so far."""
        if better:
            self.weights, self.best, self.waited = _copy(self.mean), figure, 0
        else:
            self.waited += 1

    def state(self) -> dict[str, Any]:
        """What `go_on` needs."""
        told = {name: getattr(self, name) for name in _TOLD}
        return told | {name: part.state_dict() for name, part in self._parts().items()}

    def go_on(self, state: dict[str, Any] | None) -> None:
        """Take up a state; None changes nothing."""
        if state is None:
            return
        for name in _TOLD:
            setattr(self, name, state[name])
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        teacher = self.teacher
        return {
            "model": teacher.model,
            "average": self.average,
            "optimizer": teacher.optimizer,
            "schedule": teacher.schedule,
        }


_TOLD = ("passes", "waited", "seconds", "best", "weights")


def newest_tenth(average: Tensors, weights: Tensors, steps: Tensor | int) -> None:
    """Polynomial-decay averaging (Shamir & Zhang 2013, section 4, with eta = 9)."""
    share = float(10 / (steps + 10))
    for mean, newest in zip(average, weights, strict=True):
        mean.lerp_(newest, share)


def constant(warm_up: int) -> Callable[[int], float]:
    """Up to the full rate in `warm_up` steps, and on."""
    return lambda step: min((step + 1) / max(warm_up, 1), 1.0)


def cosine(steps: int) -> Callable[[int], float]:
    """Up to the full rate in a twentieth of the steps, then a cosine down to nothing."""
    warm_up = max(steps // 20, 1)

    def share(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1)))

    return share


def _copy(model: Model) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}
