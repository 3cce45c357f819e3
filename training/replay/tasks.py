"""What is to be played: a line for each model clock, kept in `CLOCK/ANSWERS` of a run's folder."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from nearline.replacing import replace_file
from training.learning import reproducible
from training.replay.clocks import BASELINES, Clock, Policy, clocks_of
from training.replay.models import ModelLine
from training.replay.play import Answer, Line, play
from training.replay.rivals import BaselineLine
from training.replay.store import Parts, digest
from training.replay.timeline import Timeline

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
class Run:
    """What all lines of a replay share.

    `stop_at` is in time.time seconds; `night_s` is how many seconds a night may last at most.
    """

    timeline: Timeline
    folder: Path
    seed: int
    stop_at: float = math.inf
    night_s: float = math.inf

    @property
    def night(self) -> Path:
        """The model that all clocks begin with."""
        return self.folder / "night.line"

    def line(self, clock: Clock, path: Path | None = None) -> Line:
        """What a clock moves, as a file has it; without one, as it is when the replay begins."""
        if clock.name not in BASELINES:
            return self.model(clock, path or self.night)
        if path is None:
            return BaselineLine(self.timeline, clock.name, self.timeline.start)
        return BaselineLine.kept(path, self.timeline, clock.name)

    def model(self, clock: Clock, path: Path) -> ModelLine:
        """A clock's model, as a file has it."""
        limits = {"stop_at": self.stop_at, "night_s": self.night_s}
        return ModelLine.kept(path, self.timeline, clock, seed=self.seed, **limits)


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

    def reached(self, timeline: Timeline) -> int:
        """The moment up to which it has been played."""
        return max(self.parts.numbers(), default=timeline.start)

    def outcome(self, policy: Policy, *, until: float = math.inf) -> Outcome:
        """What was played of one of its policies, put together: the pieces that end by `until`."""
        place, parts = self.answers.index((policy.state, policy.encoder)), self.parts
        pieces = [parts.read(number) for number in parts.numbers() if number <= until]
        return Outcome(
            policy,
            np.concatenate([np.zeros(0, np.int32), *(piece.ranks[place] for piece in pieces)]),
            np.concatenate([np.zeros(0, np.int64), *(piece.model_ages for piece in pieces)]),
            sum(piece.learning for piece in pieces),
            float(sum(piece.answering[place] for piece in pieces)),
        )


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


def is_model(folder: Path) -> bool:
    """Whether a clock's folder holds what came of the first night: a baseline's does not."""
    return folder.name.rpartition("-")[0] not in BASELINES


def play_turn(run: Run, task: Task) -> int:
    """Play a line's next turn; returns the moment that it reached.

    On as many threads as a training takes, so that CPU seconds compare.
    """
    with reproducible(run.seed):
        begun = task.parts.go_on(partial(run.line, task.clock))
        begin, line = begun or (run.timeline.start, run.line(task.clock))
        return play(
            *(run.timeline, task.clock, line, task.answers, task.parts),
            begin=begin,
            stop_at=run.stop_at,
        )
