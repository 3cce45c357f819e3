"""Lines are played in turn: a run that is cut has got all about as far."""

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from training.replay.clocks import Clock, parse_policies
from training.replay.models import Learned
from training.replay.play import marks, turn_end
from training.replay.run import BEFORE_NIGHT, compared, replay
from training.replay.store import Piece
from training.replay.tasks import Run, Task, tasks_of
from training.replay.timeline import Timeline
from training.replay.turns import play_in_turn


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that had a turn, which each plays whole, without any model."""
    found: list[str] = []

    def turn(run: Run, task: Task) -> int:
        begin = task.reached(run.timeline)
        end = turn_end(run.timeline, begin)
        found.append(task.clock.name)
        keep(run.timeline, task, begin, end)
        return end

    monkeypatch.setattr("training.replay.turns.play_turn", turn)
    return found


def keep(world: Timeline, task: Task, begin: int, end: int) -> None:
    """A piece in which all is foreseen."""
    nothing = np.zeros(len(world.between(begin, end)), np.int32)
    piece = Piece(np.tile(nothing, (len(task.answers), 1)), nothing, 1.0, np.zeros(1))
    task.parts.write(end, piece, lambda path: path.touch())


def tasks(folder: Path, names: str) -> list[Task]:
    return list(tasks_of(folder, parse_policies(names, step="day")))


def test_each_has_its_turn_and_none_gets_far_ahead(
    world: Timeline, tmp_path: Path, told: list[str]
) -> None:
    names = "live/weekly,live/daily-replay,live/never,popular"
    play_in_turn(Run(world, tmp_path, seed=1), tasks(tmp_path, names), workers=1)
    one_round = ["never", "popular", "daily-replay", "weekly"]
    assert told == one_round * len(marks(world))


def test_one_that_is_behind_comes_first(world: Timeline, tmp_path: Path, told: list[str]) -> None:
    two = tasks(tmp_path, "popular,popular_1d")
    first = int(marks(world)[0])
    keep(world, two[0], world.start, first)
    play_in_turn(Run(world, tmp_path, seed=1), two, workers=1)
    assert told[:3] == ["popular_1d", "popular", "popular_1d"]


def test_a_night_waits_until_its_share_of_the_time_suffices(
    world: Timeline, tmp_path: Path, told: list[str]
) -> None:
    run = Run(world, tmp_path, seed=1, stop_at=time.time() + 3000)
    lines = tasks(tmp_path, "live/weekly,live/never")
    play_in_turn(run, lines, workers=1, night_seconds=2000)
    ends = marks(world).tolist()
    before = 1 + ends.index(midnight(world))
    after = len(ends) - before
    assert told == ["never", "weekly"] * before + ["never"] * after + ["weekly"] * after


def midnight(world: Timeline) -> int:
    return int(Clock.parse("weekly", step="day").ticks(world.start, world.end)[0])


def test_a_night_for_which_no_time_is_left_is_not_begun(
    world: Timeline, tmp_path: Path, told: list[str]
) -> None:
    run = Run(world, tmp_path, seed=1, stop_at=time.time() + 1000)
    (line,) = tasks(tmp_path, "live/weekly")
    play_in_turn(run, [line], workers=1, night_seconds=2000)
    assert line.reached(world) == midnight(world)


def test_what_ran_out_of_time_has_no_other_turn(
    world: Timeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[str] = []

    def stuck(run: Run, task: Task) -> int:
        turns.append(task.clock.name)
        return task.reached(run.timeline)

    monkeypatch.setattr("training.replay.turns.play_turn", stuck)
    play_in_turn(Run(world, tmp_path, seed=1), tasks(tmp_path, "popular,popular_1d"), workers=1)
    assert turns == ["popular", "popular_1d"]


def test_a_run_that_is_cut_compares_all_on_what_all_foresaw(
    world: Timeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = parse_policies("popular,popular_1d,popular_7d,item_to_item", step="day")
    looks = iter([0.0] * 11 + [np.inf] * 99)
    clock = SimpleNamespace(time=lambda: next(looks), process_time=time.process_time)
    monkeypatch.setattr("training.replay.play.time", clock)
    played = replay(world, policies, seed=1, max_minutes=1, workers=1, folder=tmp_path)
    events = [len(outcome.ranks) for outcome in played.outcomes]
    assert min(events) > 0
    assert max(events) < len(world.targets)
    assert {len(outcome.ranks) for outcome in played.compared} == {min(events)}
    assert len(played.compared) == 4


def test_what_did_not_get_half_as_far_is_not_compared(world: Timeline, tmp_path: Path) -> None:
    policies = parse_policies("popular,popular_1d,popular_7d,item_to_item", step="day")
    names = ",".join(policy.name for policy in policies)
    lines = dict(zip(policies, tasks(tmp_path, names), strict=True))
    ends = marks(world)
    for task, turns in zip(lines.values(), (len(ends), len(ends) - 2, 1, 0), strict=True):
        for begin, end in zip([world.start, *ends], ends[:turns], strict=False):
            keep(world, task, int(begin), int(end))
    found = compared(lines, world)
    assert [outcome.policy.name for outcome in found] == ["popular", "popular_1d"]
    shared = len(world.between(world.start, int(ends[-3])))
    assert [len(outcome.ranks) for outcome in found] == [shared, shared]
    assert [outcome.learning for outcome in found] == [len(ends) - 2] * 2


def test_baselines_do_not_wait_for_the_night(
    world: Timeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(timeline: Timeline, moment: int, **options: object) -> Learned:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.replay.run.learn_night", endless)
    asked = parse_policies("live/never,popular", step="day")
    options = {"seed": 1, "max_minutes": 5 / BEFORE_NIGHT, "workers": 1, "folder": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        replay(world, asked, **options)  # type: ignore[arg-type]
    (popular,) = tasks(next(tmp_path.iterdir()), "popular")
    assert popular.reached(world) == world.end
