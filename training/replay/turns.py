"""Whose turn it is: the lines are played in turn, so that a run that is cut has got all as far."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from threading import Thread

import torch
from tqdm import tqdm

from training.replay.play import turn_end
from training.replay.tasks import Run, Task, play_turn
from training.replay.timeline import Timeline

Player = Callable[[Task], "Future[int]"]
"""Plays a line's next turn; the moment that it reached."""


def play_in_turn(
    run: Run, tasks: Sequence[Task], *, workers: int, night_seconds: float = 0.0
) -> None:
    """Play all lines to the end, or until the run's time is up, `workers` at a time.

    The one that is least far comes next, of those as far the cheaper, which come first in `tasks`.
    One that is to learn everything again, which takes about `night_seconds`, waits until the time
    left is shared by so few that its share suffices.
    """
    timeline, reached = run.timeline, {task: task.reached(run.timeline) for task in tasks}
    waiting = [task for task in tasks if reached[task] < timeline.end]
    running: dict[Future[int], Task] = {}
    with _bar(timeline, reached) as bar, _players(run, workers) as player:
        while True:
            while len(running) < workers:
                left, lines = run.stop_at - time.time(), len(waiting) + len(running)
                share = left * min(workers, lines) / max(lines, 1)
                task = next_of(waiting, reached, timeline, night=night_seconds <= share)
                if task is None or left < 0:
                    break
                bar.set_description(task.clock.name)
                waiting.remove(task)
                running[player(task)] = task
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task, moment = running.pop(future), future.result()
                bar.update(len(timeline.between(reached[task], moment)))
                whole = moment == turn_end(timeline, reached[task])
                reached[task] = moment
                if whole and moment < timeline.end:
                    waiting.append(task)


def next_of(
    waiting: Sequence[Task], reached: dict[Task, int], timeline: Timeline, *, night: bool
) -> Task | None:
    """The line that comes next; None where each has to learn a night, and `night` is false."""
    places = {task: place for place, task in enumerate(reached)}
    able = [task for task in waiting if night or not learns_a_night(task, reached[task], timeline)]
    return min(able, key=lambda task: (reached[task], places[task]), default=None)


def learns_a_night(task: Task, begin: int, timeline: Timeline) -> bool:
    """Whether a line learns everything again in the turn that begins at a moment."""
    ticks = task.clock.ticks(timeline.start, timeline.end)
    turn = ticks[(ticks >= begin) & (ticks < turn_end(timeline, begin))]
    return any(task.clock.retrains(tick, timeline.start) for tick in turn.tolist())


def _bar(timeline: Timeline, reached: dict[Task, int]) -> tqdm:
    """A bar of events, those that were played before included."""
    before = sum(len(timeline.between(timeline.start, moment)) for moment in reached.values())
    total = len(timeline.targets) * len(reached)
    return tqdm(total=total, initial=before, unit="event", disable=None)


@contextmanager
def _players(run: Run, workers: int) -> Iterator[Player]:
    """Turns are played here, or by `workers` processes of one thread each; one fails, all end."""
    if workers == 1:
        yield lambda task: _done(play_turn(run, task))
        return
    others, context = set(active_children()), get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(run,)) as pool:
        try:
            yield lambda task: pool.submit(_play, task)
        except BaseException:
            for worker in set(active_children()) - others:
                worker.terminate()
            raise


def _done(moment: int) -> "Future[int]":
    future: Future[int] = Future()
    future.set_result(moment)
    return future


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


def _play(task: Task) -> int:
    return play_turn(_run, task)
