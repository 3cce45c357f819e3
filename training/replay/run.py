"""A whole experiment: the first night once, then a line for each model clock, side by side."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from nearline.console import progress
from nearline.settings import settings
from training.evaluation import Evaluation
from training.learning import reproducible
from training.publishing import code_version
from training.recipe import load_recipe
from training.replay.clocks import BASELINES, Clock, Policy, clocks_of
from training.replay.memory import remembered
from training.replay.models import ModelLine, learn_night
from training.replay.play import Answer, Line, play
from training.replay.rivals import BaselineLine
from training.replay.store import Parts, digest
from training.replay.timeline import Timeline

FIRST_NIGHT = 1 / 3
"""Share of the time that the first night may take."""


@dataclass(frozen=True)
class Outcome:
    """What a policy foresaw of the first events of the replay: all, unless time ran out.

    `ranks` and `model_ages` (microseconds) are (events,); `learning` and `answering` CPU seconds.
    """

    policy: Policy
    ranks: np.ndarray
    model_ages: np.ndarray
    learning: float
    answering: float

    @property
    def seconds(self) -> float:
        """What the clocks cost in CPU seconds, after the first night."""
        return self.learning + self.answering


@dataclass(frozen=True)
class Played:
    """A replay, whole or cut short; `night_seconds` is what the model that all began with cost.

    `memory` tells what each model clock's model still foresees of what came before the replay,
    after what the first night's model does (`never`).
    """

    timeline: Timeline
    outcomes: list[Outcome]
    night_seconds: float
    memory: dict[str, Evaluation]


def replay(
    timeline: Timeline,
    policies: Sequence[Policy],
    *,
    seed: int,
    max_minutes: float,
    workers: int,
    folder: Path,
) -> Played:
    """Play all policies, those of one model clock together, `workers` clocks at a time.

    Finished days lie in `folder`, and are not played again. Raises BadInput when there is nothing
    to learn from.
    """
    stop_at = time.time() + 60 * max_minutes
    here = folder / key(timeline, seed)
    here.mkdir(parents=True, exist_ok=True)
    lines = clocks_of(policies)
    night_seconds = 0.0
    if any(clock.name not in BASELINES for clock in lines):
        night_seconds = first_night(timeline, here, seed=seed, minutes=max_minutes * FIRST_NIGHT)
    with tqdm(total=len(timeline.targets) * len(lines), unit="event", disable=None) as bar:
        if workers == 1:
            for clock, answers in lines.items():
                bar.set_description(clock.name)
                play_line(timeline, clock, answers, here, seed, stop_at, told=bar.update)
        else:
            _side_by_side(timeline, lines, here, seed, stop_at, workers, bar)
    kept = {clock: parts_of(here, clock, answers) for clock, answers in lines.items()}
    outcomes = [
        outcome(
            policy, kept[policy.clock], lines[policy.clock].index((policy.state, policy.encoder))
        )
        for policy in policies
    ]
    return Played(timeline, outcomes, night_seconds, memories(timeline, kept, here, seed=seed))


def key(timeline: Timeline, seed: int) -> str:
    """The name of all that figures depend on, policies apart: the data, the seed, the code."""
    data, config = timeline.everything, settings()
    learned = [
        load_recipe(config.model_size).model_dump_json(),
        config.sequence_length,
        config.replay_days,
        config.replay_events,
        config.history_days,
    ]
    columns = (data.users, data.items, data.types, data.times, timeline.targets)
    named = [
        seed,
        timeline.start,
        learned,
        code_version(),
        timeline.catalogue["item_id"].to_pylist(),
    ]
    return digest(*columns, timeline.known_since, *named)


def first_night(timeline: Timeline, folder: Path, *, seed: int, minutes: float) -> float:
    """Learn the model that all clocks begin with, once; returns its CPU seconds."""
    path, costs = folder / "night.line", folder / "night.json"
    if not costs.is_file():
        with progress("the first night"):
            began, stop_at = time.process_time(), time.monotonic() + 60 * minutes
            bundle = learn_night(timeline, timeline.start, seed=seed, stop_at=stop_at)
            seconds = time.process_time() - began
        ModelLine(timeline, Clock("never"), seed, bundle, timeline.start).save(path)
        costs.write_text(json.dumps(seconds))
    return float(json.loads(costs.read_text()))


def memories(
    timeline: Timeline, kept: Mapping[Clock, Parts], folder: Path, *, seed: int
) -> dict[str, Evaluation]:
    """What the first night's model remembers, and each that has learned since."""
    found: dict[str, Evaluation] = {}
    models = {clock: parts for clock, parts in kept.items() if clock.name not in BASELINES}
    with reproducible(seed):
        if models:
            line = ModelLine.kept(folder / "night.line", timeline, Clock("never"), seed=seed)
            found["never"] = remembered(timeline, line)
        for clock, parts in models.items():
            if parts.days() and clock.name not in found:
                line = ModelLine.kept(parts.line(parts.days()[-1]), timeline, clock, seed=seed)
                found[clock.name] = remembered(timeline, line)
    return found


def make_line(timeline: Timeline, clock: Clock, folder: Path, *, seed: int) -> Line:
    """What a clock moves, as it is when the replay begins."""
    if clock.name in BASELINES:
        return BaselineLine(timeline, clock.name)
    return ModelLine.kept(folder / "night.line", timeline, clock, seed=seed)


def parts_of(folder: Path, clock: Clock, answers: Sequence[Answer]) -> Parts:
    """Where the days of a clock are kept."""
    return Parts(folder / f"{clock.name}-{digest(list(answers))}")


def outcome(policy: Policy, parts: Parts, place: int) -> Outcome:
    """The finished days of a policy, put together; `place` is its place among the answers."""
    days = [parts.read(day) for day in parts.days()]
    return Outcome(
        policy,
        np.concatenate([np.zeros(0, np.int32), *(day.ranks[place] for day in days)]),
        np.concatenate([np.zeros(0, np.int64), *(day.model_ages for day in days)]),
        sum(day.learning for day in days),
        float(sum(day.answering[place] for day in days)),
    )


def _side_by_side(
    timeline: Timeline,
    lines: Mapping[Clock, Sequence[Answer]],
    folder: Path,
    seed: int,
    stop_at: float,
    workers: int,
    bar: tqdm,
) -> None:
    """The clocks in processes of their own, one thread each."""
    parts = [parts_of(folder, *line) for line in lines.items()]
    with ProcessPoolExecutor(
        workers,
        get_context("spawn"),
        initializer=_begin,
        initargs=(timeline, folder, seed, stop_at),
    ) as pool:
        waiting: set[Future[None]] = {pool.submit(_play, *line) for line in lines.items()}
        while waiting:
            done, waiting = wait(waiting, timeout=1)
            for future in done:
                future.result()
            bar.update(sum(part.events() for part in parts) - bar.n)


def play_line(
    timeline: Timeline,
    clock: Clock,
    answers: Sequence[Answer],
    folder: Path,
    seed: int,
    stop_at: float,
    told: Callable[[int], object] = lambda events: None,
) -> None:
    """Play one clock, on as many threads as a training takes, so that CPU seconds compare."""
    with reproducible(seed):
        line, parts = (
            make_line(timeline, clock, folder, seed=seed),
            parts_of(folder, clock, answers),
        )
        play(timeline, clock, line, answers, parts, stop_at=stop_at, told=told)


_shared: tuple[Timeline, Path, int, float]


def _begin(*shared: Timeline | Path | int | float) -> None:
    """What all tasks of a process share."""
    global _shared
    _shared = shared  # type: ignore[assignment]
    torch.set_num_threads(1)


def _play(clock: Clock, answers: Sequence[Answer]) -> None:
    timeline, folder, seed, stop_at = _shared
    play_line(timeline, clock, answers, folder, seed, stop_at)
