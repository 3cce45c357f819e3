"""Play a timeline, turn by turn: each event is first foreseen, then learned.

All events of a stretch between two ticks are foreseen by the line as the first tick left it; it
cannot learn more, as only what lies before a tick is handed to it.
"""

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from training.baselines import DAY_US
from training.dataset import NONE, Interactions
from training.evaluation import Scorer, evaluate
from training.replay.clocks import Clock
from training.replay.store import Parts, Piece
from training.replay.timeline import HOUR_US, Timeline

MISSED = np.iinfo(np.int32).max
"""The rank of an event that could not be foreseen: its item was not known."""

TURNS = (HOUR_US, 6 * HOUR_US, DAY_US)
"""How long a line may play at a time (microseconds): the first that makes FEW_TURNS or fewer, or
a day."""

FEW_TURNS = 50

Answer = tuple[str, str]
"""State and encoder."""


class OutOfTime(Exception):
    """What a line was to learn could not be learned whole before the replay has to end."""


class Line(Protocol):
    """Something that ranks items, and ticks. `learned_until` is where what it knows ends."""

    learned_until: int

    @property
    def items(self) -> int:
        """How many items it can rank: the first ones of the timeline."""

    def tick(self, moment: int) -> None:
        """Learn what has happened before a moment. May raise OutOfTime, and is as it was then."""

    def scorer(self, state: str, encoder: str, data: Interactions) -> Scorer:
        """Scores for targets of `data`, which holds the line's items only."""

    def save(self, path: Path) -> None:
        """Keep the line as it is."""


def marks(timeline: Timeline) -> np.ndarray:
    """The moments at which turns end, ascending: the same for all lines. The last is the end."""
    lasts = timeline.end - timeline.start
    span = next((span for span in TURNS if lasts <= FEW_TURNS * span), DAY_US)
    whole = np.arange(timeline.start // span + 1, timeline.end // span + 1) * span
    return np.unique([*whole, timeline.end])


def turn_end(timeline: Timeline, moment: int) -> int:
    """The end of the turn that begins at a moment, or in which it lies."""
    found = marks(timeline)
    return int(found[np.searchsorted(found, moment, side="right")])


def stretches(timeline: Timeline, clock: Clock) -> Iterator[tuple[int, int, bool]]:
    """`[begin, end)` and whether it begins with a tick; none reaches over the end of a turn."""
    ticks = clock.ticks(timeline.start, timeline.end)
    edges = np.unique(np.concatenate([[timeline.start], ticks, marks(timeline)]))
    ticking = np.isin(edges[:-1], ticks)
    yield from zip(edges[:-1].tolist(), edges[1:].tolist(), ticking.tolist(), strict=True)


def play(
    timeline: Timeline,
    clock: Clock,
    line: Line,
    answers: Sequence[Answer],
    parts: Parts,
    *,
    begin: int,
    stop_at: float,
) -> int:
    """Play the turn of a clock's line that begins at a moment; returns the moment that it reached.

    That is the turn's end, unless `stop_at` (time.time seconds) came before. What was played is
    kept as a piece.
    """
    end = turn_end(timeline, begin)
    turn = [stretch for stretch in stretches(timeline, clock) if begin <= stretch[0] < end]
    found, reached = play_stretches(timeline, line, turn, answers, stop_at=stop_at)
    if reached > begin:
        parts.write(reached, found, line.save)
    return reached


def play_stretches(
    timeline: Timeline,
    line: Line,
    turn: Sequence[tuple[int, int, bool]],
    answers: Sequence[Answer],
    *,
    stop_at: float = math.inf,
) -> tuple[Piece, int]:
    """The stretches of a turn, as far as the time goes, and the moment that they reach."""
    ranks, ages = [np.zeros((len(answers), 0), np.int32)], [np.zeros(0, np.int64)]
    learning, answering, reached = 0.0, np.zeros(len(answers)), turn[0][0]
    for begin, end, ticks in turn:
        began = time.process_time()
        try:
            if time.time() > stop_at:
                raise OutOfTime
            if ticks:
                line.tick(begin)
        except OutOfTime:
            break
        learning += time.process_time() - began
        found, seconds = foresee(timeline, line, begin, end, answers)
        ranks.append(found)
        answering += seconds
        times = timeline.everything.times[timeline.between(begin, end)]
        ages.append(times - line.learned_until)
        reached = end
    whole = np.concatenate(ranks, axis=1)
    return Piece(whole, np.concatenate(ages), learning, answering), reached


def foresee(
    timeline: Timeline, line: Line, begin: int, end: int, answers: Sequence[Answer]
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of a stretch's events, int32 (answers, events), and the CPU seconds of each answer."""
    wanted = timeline.between(begin, end)
    ranks = np.full((len(answers), len(wanted)), MISSED, dtype=np.int32)
    seconds = np.zeros(len(answers))
    if len(wanted) == 0:
        return ranks, seconds
    seen = timeline.seen(before=end, items=line.items)
    targets = seen.place[wanted]
    rankable = targets != NONE
    for number, (state, encoder) in enumerate(answers):
        if not rankable.any():
            break
        began = time.process_time()
        asked = Timed(line.scorer(state, encoder, seen.data))
        seconds[number] = time.process_time() - began
        found = evaluate(asked, seen.data, targets[rankable], items=line.items)
        ranks[number, rankable] = found.ranks
        seconds[number] += asked.seconds
    return ranks, seconds


class Timed:
    """A scorer that counts its CPU seconds."""

    def __init__(self, score: Scorer) -> None:
        self.score, self.seconds = score, 0.0

    def __call__(self, targets: np.ndarray) -> np.ndarray:
        """The scorer's scores."""
        began = time.process_time()
        scores = self.score(targets)
        self.seconds += time.process_time() - began
        return scores
