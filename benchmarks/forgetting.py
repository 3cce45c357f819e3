"""Forgetting: what is left, after hours of fine-tunes, of the slice that a night is judged on.

Nobody learns that slice here: the night is measured on it as every night is, and then goes on
without it, and no hour repeats an event of it. So what falls is what the model could, not what it
had by heart.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.harness import run
from nearline.console import JsonFlag, print_json, print_table
from nearline.domains import load_domain
from nearline.settings import settings
from training.dataset import cut_time
from training.evaluation import Evaluation, interval
from training.lesson import HELD_OUT
from training.replay.clocks import HOWS, Clock
from training.replay.data import Source
from training.replay.memory import remembered
from training.replay.models import ModelLine, learn_night
from training.replay.timeline import Timeline, make_timeline


@dataclass(frozen=True)
class Left:
    """What is foreseen after some hours; `share` of what the night foresaw, and the difference."""

    how: str
    hours: int
    events_learned: int
    ndcg: float
    share: float
    low: float
    high: float


def without_slice(timeline: Timeline) -> Timeline:
    """The same events; those of the newest tenth before the replay are nobody's to learn."""
    times, start = timeline.everything.times, timeline.start
    cut = cut_time(times[times < start], HELD_OUT)
    asked = (times >= cut) & (times < start)
    return replace(timeline, positive=timeline.positive & ~asked)


def hourly(timeline: Timeline, line: ModelLine, most: int) -> Iterator[int]:
    """Tick through the hours that have events, `most` of them; the events learned so far."""
    learned, told = 0, 0
    for moment in line.clock.ticks(timeline.start, timeline.end).tolist():
        if told == most:
            return
        events = timeline.happened(line.learned_until, moment)
        before = line.bundle
        line.tick(moment)
        if line.bundle is not before:
            learned, told = learned + events, told + 1
            yield learned


def left(night: Evaluation, now: Evaluation, how: str, hours: int, events: int, seed: int) -> Left:
    """What an examined model has kept of what the night had."""
    low, high = interval(now.ndcg - night.ndcg, now.users, seed=seed)
    ndcg = float(now.ndcg.mean())
    return Left(how, hours, events, ndcg, ndcg / float(night.ndcg.mean()), low, high)


def main(
    events: Annotated[Path, typer.Option(help="As of `nearline replay`.")] = Path("movielens-100k"),
    from_share: Annotated[float, typer.Option(help="Share of the events before the hours.")] = 0.9,
    hours: Annotated[int, typer.Option(min=1, help="Hours with events.")] = 24,
    seed: Annotated[int, typer.Option(min=0)] = 17,
    as_json: JsonFlag = False,
) -> None:
    """What hours of fine-tunes leave of what a night could, each way to tune beside the others.

    Example: python -m benchmarks.forgetting --hours 24
    """
    os.environ.setdefault("NEARLINE_TRACK", "none")
    domain = load_domain(settings().domain)
    whole = make_timeline(*Source(events).read(), domain, from_share)
    timeline, marks = without_slice(whole), {hours // 4, hours // 2, hours}
    stop_at = time.monotonic() + 60 * settings().max_train_minutes
    bundle = learn_night(timeline, whole.start, seed=seed, stop_at=stop_at).bundle
    night = remembered(whole, ModelLine(timeline, Clock("never"), seed, bundle, whole.start))
    found = []
    for how in HOWS:
        line = ModelLine(
            timeline, Clock.parse(f"hourly-{how}", step="hour"), seed, bundle, whole.start
        )
        for count, learned in enumerate(hourly(timeline, line, hours), start=1):
            if count in marks:
                found.append(left(night, remembered(whole, line), how, count, learned, seed))
    if as_json:
        print_json([asdict(each) for each in found])
        return
    rows = [
        [
            each.how,
            each.hours,
            each.events_learned,
            f"{each.ndcg:.4f}",
            f"{each.share:.1%}",
            f"{each.low:+.4f} to {each.high:+.4f}",
        ]
        for each in found
    ]
    title = f"{len(night.ranks)} events, of which the night foresaw {night.ndcg.mean():.4f}"
    columns = ["tuned", "hours", "events learned", "NDCG@10", "of the night's", "95 %"]
    print_table(title, columns, rows)


if __name__ == "__main__":
    run(main)
