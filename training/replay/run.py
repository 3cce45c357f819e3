"""A whole experiment: the first night once, then a line for each model clock, turn by turn.

Under the folder of a run lie `night.line` and `night.json`, the model that all clocks begin with
and how it was learned, and what was played of each line (`tasks`).
"""

import json
import math
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from nearline.console import progress, say
from nearline.locks import alone_in
from nearline.replacing import replace_file, replacing
from nearline.settings import settings
from training.evaluation import Evaluation
from training.learning import reproducible
from training.publishing import code_version
from training.recipe import load_recipe
from training.replay.clocks import BASELINES, Clock, Policy
from training.replay.memory import remembered
from training.replay.models import ModelLine, learn_night
from training.replay.store import digest, machine, readable
from training.replay.tasks import Outcome, Run, Task, is_model, tasks_of
from training.replay.timeline import Timeline
from training.replay.turns import play_in_turn

BEFORE_NIGHT = 0.1
"""Share of the time that baselines, which need no night, are played for before it."""

FIRST_NIGHT = 1 / 3
"""Share of the time that the first night may take."""

FAR_ENOUGH = 0.5
"""A policy that foresaw fewer of the events than this share of what the farthest one did is not
compared: all would be compared on those few."""


@dataclass(frozen=True)
class Night:
    """How the first night was learned: its CPU seconds, passes, and whether time ended it.

    `minutes` is what it might take: more of them than one that was cut had are worth another one.
    """

    seconds: float
    minutes: float
    passes: float
    cut: bool

    @classmethod
    def read(cls, path: Path) -> "Night":
        """As it was kept."""
        return cls(**json.loads(path.read_text()))

    @property
    def longest_s(self) -> float:
        """Seconds that later nights may last: a whole one would not compare with a cut one."""
        return 60 * self.minutes if self.cut else math.inf


@dataclass(frozen=True)
class Played:
    """A replay, whole or cut short, and the night that all began with.

    `outcomes` are what each policy foresaw, `compared` what those that got far enough foresaw of
    the same first events. `memory` tells what each model clock's model still foresees of what came
    before the replay, after what the first night's model does (`never`).
    """

    timeline: Timeline
    outcomes: list[Outcome]
    compared: list[Outcome]
    night: Night | None
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
    """Play all policies in turn, those of one model clock together, `workers` clocks at a time.

    What has been played lies in `folder`, and is not played again; another run of the same waits
    for this one. Raises BadInput when there is nothing to learn from.
    """
    here, began = folder / key(timeline, seed, workers), time.time()
    with alone_in(here):
        run = Run(timeline, here, seed, began + 60 * max_minutes)
        night = None
        if any(policy.clock.name not in BASELINES for policy in policies):
            first = [policy for policy in policies if policy.clock.name in BASELINES]
            until = began + 60 * max_minutes * BEFORE_NIGHT
            play_in_turn(replace(run, stop_at=until), sound(run, first), workers=1)
            night = first_night(run, max_minutes * FIRST_NIGHT)
            run = replace(run, night_s=night.longest_s)
        tasks = sound(run, policies)
        play_in_turn(run, tasks, workers=workers, night_seconds=night.seconds if night else 0.0)
        lines = {policy: _task_of(policy, tasks) for policy in policies}
        outcomes = [task.outcome(policy) for policy, task in lines.items()]
        return Played(timeline, outcomes, compared(lines, timeline), night, memories(run, tasks))


def sound(run: Run, policies: Sequence[Policy]) -> list[Task]:
    """The lines of some policies; what cannot be read of what was played of them is gone."""
    tasks = list(tasks_of(run.folder, policies))
    for task in tasks:
        task.parts.check(partial(run.line, task.clock))
    return tasks


def compared(lines: Mapping[Policy, Task], timeline: Timeline) -> list[Outcome]:
    """What the policies that got far enough foresaw up to where all of these have ended a turn."""
    events = {
        policy: len(timeline.between(timeline.start, task.reached(timeline)))
        for policy, task in lines.items()
    }
    enough = max(FAR_ENOUGH * max(events.values()), 1)
    far = {policy: task for policy, task in lines.items() if events[policy] >= enough}
    ends = [set(task.parts.numbers()) for task in far.values()]
    shared = max(set.intersection(*ends), default=timeline.start) if ends else timeline.start
    found = [task.outcome(policy, until=shared) for policy, task in far.items()]
    return [outcome for outcome in found if len(outcome.ranks)]


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


def _task_of(policy: Policy, tasks: Iterable[Task]) -> Task:
    asked = (policy.state, policy.encoder)
    return next(each for each in tasks if each.clock == policy.clock and asked in each.answers)


def first_night(run: Run, minutes: float) -> Night:
    """The model that all clocks begin with, learned once, as long as a night may take.

    It is learned again where it was cut short and more time is given now: what models had played
    from it goes.
    """
    told, minutes = run.folder / "night.json", min(minutes, settings().max_train_minutes)
    kept = readable(told, lambda: Night.read(told))
    there = readable(run.night, lambda: run.line(Clock("never")))
    if kept is not None and there is not None and not (kept.cut and minutes > kept.minutes):
        return kept
    told.unlink(missing_ok=True)
    models = [begun for begun in run.folder.glob("*/") if is_model(begun)]
    if models:
        say("the first night is learned again: what models had played from the last one is dropped")
    for begun in models:
        shutil.rmtree(begun)
    with progress("the first night"):
        began, stop_at = time.process_time(), time.monotonic() + 60 * minutes
        start = run.timeline.start
        learned = learn_night(run.timeline, start, seed=run.seed, stop_at=stop_at)
        seconds, passes = time.process_time() - began, round(learned.passes, 2)
        night = Night(seconds, minutes, passes, learned.cut)
    line = ModelLine(run.timeline, Clock("never"), run.seed, learned.bundle, start)
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
