"""How the model learns: whole by night, warm by the hour."""

import logging
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from nearline.console import say
from nearline.settings import settings
from training.checkpoint import Checkpoint, key_of, random_state
from training.dataset import Batch, Interactions
from training.device import on_device
from training.lending import borrow
from training.memory import give_back, require_memory
from training.model import Model
from training.negatives import few_compared
from training.recipe import Learning
from training.teacher import (
    Course,
    Loss,
    Parent,
    Teacher,
    batch_loss,
    constant,
    cosine,
    training_batches,
    training_steps,
)
from training.together import (
    any_of_all,
    leads,
    members,
    of_all,
    of_the_leader,
    place,
    shares,
    together,
)
from training.watching import Watch

log = logging.getLogger(__name__)

STEPS_A_PASS = 4
"""The least, where there are so many sequences: fewer events make smaller steps, not fewer."""

LARGEST_STEP = 4
"""Times as many events as a size's step has, at most, in a warm start that has many to learn."""

LEAST_REPEATED = 1
"""Older targets that a warm start repeats for each new one, at least: without any it forgets."""

WARM_UP_STEPS = 100
"""Of the first pass, at most: the rate rises to its full height."""


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """The same numbers from the same seed on the same machine; other callers' state is kept.

    Sums depend on how many threads share them: as many as the settings say.
    """
    before, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        # Threads that wait for one another get nowhere on a busy machine: half are left to others.
        torch.set_num_threads(settings().train_threads or max(threads // 2, 1))
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
            torch.set_num_threads(threads)


Ending = Literal["patience", "time", "epochs"]
"""What ends a training: no more progress, its time, or the most passes that it may make."""


class Fitted(NamedTuple):
    """Passes made or begun, and seconds, those before a kill included; what ended them.

    `made` counts of a pass that was cut what was made of it.
    """

    passes: int
    seconds: float
    made: float
    stopped: Ending

    @property
    def cut(self) -> bool:
        """Whether the time was the end."""
        return self.stopped == "time"


def fit(
    model: Model,
    data: Interactions,
    targets: np.ndarray,
    learning: Learning,
    *,
    watch: Watch | None,
    seed: int,
    stop_at: float = math.inf,
    loss: Loss = batch_loss,
    checkpoint: Path | None = None,
    passes: Sequence[np.ndarray] | None = None,
) -> Fitted:
    """Learn `targets` until the watched figure gets no better; keeps the best weights.

    The rate stays constant and the weights are averaged over the newest tenth of the steps or so,
    so that every pass is as good an end as a planned one. The average is what is watched and kept.

    Stops at `stop_at` (time.monotonic seconds) too. `loss` is what a step goes down. With nothing
    to watch the last weights stay. With a file as `checkpoint`, the same training goes on after the
    last pass that was kept when it was killed, to the same end; the seconds before count. Where
    torchrun started several processes, all of them learn (training/together.py). `passes` are the
    targets of each pass, some of `targets`; without it each has all of them, `epochs` times at
    most. Raises StepFailed when the loss is no number, or the model needs more memory than there
    is.
    """
    began = time.monotonic()
    require_memory(model)
    model.item_tower.touch(data.items[targets] - 1)
    borrow(model)
    draws = learning.draws(model.config.items)
    loss = few_compared(loss, model, data, targets, draws=draws)
    with together(seed), on_device(model):
        passes = passes or [targets] * learning.epochs
        least = max(len(passes[0]) // STEPS_A_PASS, model.config.length)
        tokens = max(min(learning.batch_tokens, least) // members(), 1)
        steps = math.ceil(training_steps(model, data, passes[0], tokens) / members())
        rates = constant(min(steps, WARM_UP_STEPS))
        rate, decay = learning.learning_rate, learning.weight_decay
        course = Course(Teacher(model, data, rate, decay, rates, loss))
        kept = _checkpoint(checkpoint, model, data, targets, learning, seed)
        if kept is not None:
            course.go_on(kept.load(rank=place()))
            stop_at -= course.seconds
            _tell_gone_on(course, stop_at - began)
        first, taken = course.passes, steps
        stopped: Ending = "epochs"
        with _bar(first * steps, len(passes) * steps) as bar:
            for epoch in range(first, len(passes)):
                rng = np.random.default_rng([seed, epoch])
                batches = training_batches(model, data, passes[epoch], tokens, rng)
                taken = _one_pass(course, batches, bar, stop_at)
                give_back()
                if watch is not None:
                    _look(course, watch, data, bar)
                # The average turns slowly in a long training: so its figure is given time.
                patience = max(learning.patience, epoch // 5)
                if ended := _ended(course, patience, stop_at):
                    stopped = ended
                    break
                if kept is not None:
                    began = _keep(course, kept, began)
        model.load_state_dict(course.weights or course.mean.state_dict())
        if kept is not None and leads():
            kept.remove()
        made = course.passes - 1 + taken / steps
        return Fitted(course.passes, course.seconds + _since(began), made, stopped)


def _tell_gone_on(course: Course, left_s: float) -> None:
    """Say that a training goes on which was killed."""
    if course.passes and leads():
        past, left = course.seconds / 60, max(left_s, 0) / 60
        limit = f"; {left:.1f} minutes are left" if math.isfinite(left) else ""
        say(f"train: going on after {course.passes} passes and {past:.1f} minutes{limit}")


def _ended(course: Course, patience: int, stop_at: float) -> Ending | None:
    """What ends a training after a pass; None where it goes on."""
    if any_of_all(time.monotonic() > stop_at):
        return "time"
    return "patience" if course.waited >= patience else None


def _keep(course: Course, kept: Checkpoint, began: float) -> float:
    """Write a course down where that is due; since when its seconds are not counted yet."""
    if not any_of_all(leads() and kept.due()):
        return began
    random = of_all(random_state())
    now = time.monotonic()
    course.seconds += now - began
    if leads():
        kept.save(course.state(), random)
    return now


def _since(moment: float) -> float:
    return time.monotonic() - moment


def _bar(begun: int, total: int) -> tqdm:
    """A bar of steps, of which `begun` were made before; the leader's alone."""
    hidden = None if leads() else True
    return tqdm(total=total, initial=begun, unit="step", desc="train", disable=hidden)


def _one_pass(course: Course, batches: Iterable[Batch], bar: tqdm, stop_at: float) -> int:
    """Take the steps of a pass, as many as there is time for; returns how many these were."""
    taken = 0
    for batch in shares(batches):
        course.step(batch)
        taken += 1
        bar.update()
        if any_of_all(time.monotonic() > stop_at):
            break
    course.passes += 1
    return taken


def _look(course: Course, watch: Watch, data: Interactions, bar: tqdm) -> None:
    """Ask for the watched figure after a pass."""
    figure = of_the_leader(lambda: watch.figure(course.mean, data))
    bar.set_postfix(watched=f"{watch.name} {figure:.4f}")
    log.info("pass %d: %s %.4f on what is watched", course.passes, watch.name, figure)
    course.tell(figure, better=watch.better(figure, course.best))


def _checkpoint(
    path: Path | None,
    model: Model,
    data: Interactions,
    targets: np.ndarray,
    learning: Learning,
    seed: int,
) -> Checkpoint | None:
    """Where this very training is kept; None without a file."""
    if path is None:
        return None
    told = f"{model.config} {learning.model_dump_json()} {seed} {members()}"
    begins = (targets, data.items, data.types, data.times, model.state_dict().values())
    return Checkpoint(path, key_of(told, *begins))


class Warmed(NamedTuple):
    """What a warm start did: its steps, and how many new and older targets they were made of.

    `cut` tells whether the time ended it before its last step.
    """

    steps: int
    new: int
    repeated: int
    cut: bool = False


def warm(
    model: Model,
    data: Interactions,
    new: np.ndarray,
    old: np.ndarray,
    learning: Learning,
    *,
    seed: int,
    stop_at: float = math.inf,
) -> Warmed:
    """Go on learning from `new` targets, mixed with whole users drawn from the `old` ones.

    What the model answered to the old ones before, its parent's answers, holds it back: with the
    weight `distillation`. One pass, and at most `warm_steps` steps: where these are too few, fewer
    older ones are repeated, then steps grow, then new ones are left out. More passes at a higher
    rate fit the few users of some hours, and foresee the next hours worse than no fine-tune does.
    No step begins after `stop_at` (time.monotonic seconds).
    """
    if len(new) == 0:
        return Warmed(0, 0, 0)
    rng = np.random.default_rng([seed, len(new)])
    repeated = whole_users(data, old, int(learning.replay_ratio * len(new)), rng)
    tokens, new, repeated = _fitting(model, data, new, repeated, learning, rng)
    mixed = np.concatenate([new, repeated])
    model.item_tower.touch(data.items[mixed] - 1)
    loss: Loss = batch_loss
    if learning.distillation and len(repeated):
        loss = Parent(model, repeated, learning.distillation).loss
    loss = few_compared(loss, model, data, mixed, draws=learning.draws(model.config.items))
    batches = training_batches(model, data, mixed, tokens, rng)
    parts = list(batches)[: learning.warm_steps]
    # Adam steps as far for ten events as for thousands: a step counts for as much as it has seen.
    rate = learning.warm_learning_rate * min(len(mixed) / learning.batch_tokens, 1.0)
    with on_device(model):
        rates = cosine(len(parts))
        teacher = Teacher(model, data, rate, learning.weight_decay, rates, loss)
        taken = 0
        while taken < len(parts) and time.monotonic() <= stop_at:
            teacher.step(parts[taken])
            taken += 1
    return Warmed(taken, len(new), len(repeated), cut=taken < len(parts))


def _fitting(
    model: Model,
    data: Interactions,
    new: np.ndarray,
    repeated: np.ndarray,
    learning: Learning,
    rng: np.random.Generator,
) -> tuple[int, np.ndarray, np.ndarray]:
    """Events a step, and of both targets so many as fit into `warm_steps` of them.

    Of the older ones at least LEAST_REPEATED stay for each new one. A step over a large catalogue
    costs hardly more with twice the events: where these do not fit, steps grow, up to LARGEST_STEP
    times.
    """
    most, tokens = learning.warm_steps, learning.batch_tokens

    def steps(*parts: np.ndarray) -> int:
        return training_steps(model, data, np.concatenate(parts), tokens)

    if (all_of_them := steps(new, repeated)) <= most:
        return tokens, new, repeated
    least = whole_users(data, repeated, min(LEAST_REPEATED * len(new), len(repeated)), rng)
    while (needed := steps(new, least)) > most and tokens < LARGEST_STEP * learning.batch_tokens:
        tokens *= 2
        all_of_them = steps(new, repeated)
    if needed > most:
        new, repeated = (
            whole_users(data, part, len(part) * most // needed, rng) for part in (new, least)
        )
    elif all_of_them > most:
        room = (len(repeated) - len(least)) * (most - needed) // (all_of_them - needed)
        repeated = whole_users(data, repeated, len(least) + room, rng)
    return tokens, new, repeated


def whole_users(
    data: Interactions, targets: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """About `count` of the targets: those of whole users, drawn at random."""
    users, sizes = np.unique(data.users[targets], return_counts=True)
    drawn = rng.permutation(len(users))
    enough = int(np.searchsorted(np.cumsum(sizes[drawn]), count)) + 1 if count else 0
    chosen: np.ndarray = targets[np.isin(data.users[targets], users[drawn[:enough]])]
    return chosen


def in_turn(
    data: Interactions, old: np.ndarray, count: int, passes: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """`count` of the `old` targets, or all of them, for each pass: users in a random order.

    None is repeated before all others were.
    """
    users, rows = np.unique(data.users[old], return_inverse=True)
    line = old[np.argsort(rng.permutation(len(users))[rows], kind="stable")]
    count = min(count, len(old))
    places = np.arange(passes * count).reshape(passes, count)
    return [np.sort(line[each % len(line)]) for each in places]
