"""A whole experiment: the first night once, then a line for each model clock, side by side.

Under the folder of a run lie `night.line` and `night.json`, the model that all clocks begin with
and how it was learned, and a folder `CLOCK/ANSWERS` for each line.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from threading import Thread

import numpy as np
import torch
from tqdm import tqdm

from nearline.console import progress
from nearline.locks import alone_in
from nearline.replacing import replace_file, replacing
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
from training.replay.store import Parts, digest, machine, readable
from training.replay.timeline import Timeline

FIRST_NIGHT = 1 / 3
"""Share of the time that the first night may take."""

_ANSWERS = "answers.json"


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
class Night:
    """How the first night was learned: its CPU seconds, the minutes that it had, if they ended it.

    More minutes than a night that was cut short had are worth another one.
    """

    seconds: float
    minutes: float
    cut: bool

    @classmethod
    def read(cls, path: Path) -> "Night":
        """As it was kept."""
        return cls(**json.loads(path.read_text()))


@dataclass(frozen=True)
class Played:
    """A replay, whole or cut short, and the night that all began with.

    `memory` tells what each model clock's model still foresees of what came before the replay,
    after what the first night's model does (`never`).
    """

    timeline: Timeline
    outcomes: list[Outcome]
    night: Night | None
    memory: dict[str, Evaluation]


@dataclass(frozen=True)
class Run:
    """What all lines of a replay share; `stop_at` is in time.time seconds."""

    timeline: Timeline
    folder: Path
    seed: int
    stop_at: float = math.inf

    @property
    def night(self) -> Path:
        """The model that all clocks begin with."""
        return self.folder / "night.line"

    def line(self, clock: Clock) -> Line:
        """What a clock moves, as it is when the replay begins."""
        if clock.name in BASELINES:
            return BaselineLine(self.timeline, clock.name)
        return self.model(clock, self.night)

    def model(self, clock: Clock, path: Path) -> ModelLine:
        """A clock's model, as a file has it."""
        return ModelLine.kept(path, self.timeline, clock, seed=self.seed, stop_at=self.stop_at)


@dataclass(frozen=True)
class Task:
    """A line to be played: a model clock, what is asked of it, and where that is kept."""

    clock: Clock
    answers: tuple[Answer, ...]
    folder: Path

    @property
    def parts(self) -> Parts:
        """What has been played of it."""
        return Parts(self.folder)

    def events(self, timeline: Timeline) -> int:
        """How many events that is."""
        reached = max(self.parts.numbers(), default=timeline.start)
        return len(timeline.between(timeline.start, reached))

    def outcome(self, policy: Policy) -> Outcome:
        """What was played of one of its policies, put together."""
        place, parts = self.answers.index((policy.state, policy.encoder)), self.parts
        pieces = [parts.read(number) for number in parts.numbers()]
        return Outcome(
            policy,
            np.concatenate([np.zeros(0, np.int32), *(piece.ranks[place] for piece in pieces)]),
            np.concatenate([np.zeros(0, np.int64), *(piece.model_ages for piece in pieces)]),
            sum(piece.learning for piece in pieces),
            float(sum(piece.answering[place] for piece in pieces)),
        )


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

    What has been played lies in `folder`, and is not played again; another run of the same waits
    for this one. Raises BadInput when there is nothing to learn from.
    """
    here = folder / key(timeline, seed, workers)
    with alone_in(here):
        run = Run(timeline, here, seed, time.time() + 60 * max_minutes)
        models = any(policy.clock.name not in BASELINES for policy in policies)
        night = first_night(run, max_minutes * FIRST_NIGHT) if models else None
        tasks = list(tasks_of(here, policies))
        with tqdm(total=len(timeline.targets) * len(tasks), unit="event", disable=None) as bar:
            if workers == 1:
                for task in tasks:
                    bar.set_description(task.clock.name)
                    play_line(run, task, told=bar.update)
            else:
                _side_by_side(run, tasks, workers, bar)
        outcomes = [_task_of(policy, tasks).outcome(policy) for policy in policies]
        return Played(timeline, outcomes, night, memories(run, tasks))


def key(timeline: Timeline, seed: int, workers: int = 1) -> str:
    """The name of all that figures depend on, policies apart: data, seed, settings, code."""
    data, config = timeline.everything, settings()
    columns = [each for each in vars(data).values() if isinstance(each, np.ndarray)]
    told = [
        seed,
        timeline.start,
        timeline.types,
        load_recipe(config.model_size).model_dump_json(),
        config.sequence_length,
        config.replay_days,
        config.replay_events,
        config.history_days,
        config.max_train_minutes,
        machine(),
        workers > 1 and not config.train_threads,  # clocks side by side have one thread each
        code_version(),
    ]
    columns += [timeline.positive, timeline.targets, timeline.known_since]
    return digest(*columns, timeline.catalogue, *told)


def tasks_of(folder: Path, policies: Sequence[Policy]) -> Iterator[Task]:
    """The lines that answer for all policies: those that were begun before, then new ones.

    A state that is asked for later is played beside what has been played, which stays.
    """
    for clock, answers in clocks_of(policies).items():
        left, place = set(answers), folder / f"{clock.name}-{digest(asdict(clock))}"
        begun = [Task(clock, known, path.parent) for path, known in _begun(place)]
        for task in sorted(begun, key=lambda task: (-len(task.answers), task.answers)):
            if left & set(task.answers):
                left -= set(task.answers)
                yield task
        if left:
            asked = tuple(sorted(left))
            task = Task(clock, asked, place / digest(asked))
            task.folder.mkdir(parents=True, exist_ok=True)
            replace_file(task.folder / _ANSWERS, json.dumps(asked))
            yield task


def _begun(folder: Path) -> Iterator[tuple[Path, tuple[Answer, ...]]]:
    for path in sorted(folder.glob(f"*/{_ANSWERS}")):
        yield path, tuple((state, encoder) for state, encoder in json.loads(path.read_text()))


def _task_of(policy: Policy, tasks: Iterable[Task]) -> Task:
    asked = (policy.state, policy.encoder)
    return next(each for each in tasks if each.clock == policy.clock and asked in each.answers)


def first_night(run: Run, minutes: float) -> Night:
    """The model that all clocks begin with, learned once, as long as a night may take.

    It is learned again where it was cut short and more time is given now: what had been played from
    it goes.
    """
    told, minutes = run.folder / "night.json", min(minutes, settings().max_train_minutes)
    kept = readable(told, lambda: Night.read(told))
    there = readable(run.night, lambda: run.line(Clock("never")))
    if kept is not None and there is not None and not (kept.cut and minutes > kept.minutes):
        return kept
    told.unlink(missing_ok=True)
    for begun in run.folder.glob("*/"):
        shutil.rmtree(begun)
    with progress("the first night"):
        began, stop_at = time.process_time(), time.monotonic() + 60 * minutes
        start = run.timeline.start
        bundle = learn_night(run.timeline, start, seed=run.seed, stop_at=stop_at)
        night = Night(time.process_time() - began, minutes, time.monotonic() > stop_at)
    line = ModelLine(run.timeline, Clock("never"), run.seed, bundle, start)
    with replacing(run.night) as staged:
        line.save(staged)
    replace_file(told, json.dumps(asdict(night)))
    return night


def memories(run: Run, tasks: Iterable[Task]) -> dict[str, Evaluation]:
    """What the first night's model remembers, and each that has learned since."""
    found: dict[str, Evaluation] = {}
    with reproducible(run.seed):
        for task in tasks:
            if task.clock.name in BASELINES:
                continue
            if not found:
                first = run.model(Clock("never"), run.night)
                found["never"] = remembered(run.timeline, first)
            parts = task.parts
            if parts.numbers() and task.clock.name not in found:
                line = run.model(task.clock, parts.line(parts.numbers()[-1]))
                found[task.clock.name] = remembered(run.timeline, line)
    return found


def play_line(run: Run, task: Task, told: Callable[[int], object] = lambda events: None) -> None:
    """Play one clock, on as many threads as a training takes, so that CPU seconds compare."""
    with reproducible(run.seed):
        line = run.line(task.clock)
        play(
            run.timeline,
            task.clock,
            line,
            task.answers,
            task.parts,
            stop_at=run.stop_at,
            told=told,
        )


def _side_by_side(run: Run, tasks: Sequence[Task], workers: int, bar: tqdm) -> None:
    """The lines in processes of their own, one thread each; where one fails, all end at once."""
    others, context = set(active_children()), get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(run,)) as pool:
        waiting: set[Future[None]] = {pool.submit(_play, task) for task in tasks}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=1)
                for future in done:
                    future.result()
                bar.update(sum(task.events(run.timeline) for task in tasks) - bar.n)
        except BaseException:
            for worker in set(active_children()) - others:
                worker.terminate()
            raise


_run: Run
"""What all tasks of a worker share."""


def _begin(run: Run) -> None:
    """A worker begins: it has one thread, and ends with the process that started it."""
    global _run
    _run = run
    torch.set_num_threads(1)
    Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _play(task: Task) -> None:
    play_line(_run, task)
