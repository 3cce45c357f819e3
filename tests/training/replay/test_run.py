"""What a run leaves behind: another one goes on from it only where it would have made the same."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from nearline.settings import settings
from training import lesson
from training.baselines import DAY_US
from training.replay import models
from training.replay.clocks import Clock, parse_policies
from training.replay.play import Line, marks
from training.replay.run import Played, key, replay
from training.replay.tasks import Run, Task
from training.replay.timeline import Timeline
from training.replay.turns import play_in_turn

from .conftest import tiny

POLICIES = "live/never,live/daily-plain,popular"


def run(world: Timeline, folder: Path, policies: str = POLICIES, minutes: float = 5) -> Played:
    asked = parse_policies(policies, step="day")
    return replay(world, asked, seed=3, max_minutes=minutes, workers=1, folder=folder)


def same(one: Played, other: Played) -> None:
    for mine, others in zip(one.outcomes, other.outcomes, strict=True):
        np.testing.assert_array_equal(mine.ranks, others.ranks, err_msg=mine.policy.name)
        np.testing.assert_array_equal(mine.model_ages, others.model_ages)


@pytest.fixture
def nights(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The moments of the nights that were learned."""
    found: list[int] = []
    honest = models.learn_night

    def learn(timeline: Timeline, moment: int, **options: float) -> object:
        found.append(moment)
        return honest(timeline, moment, **options)  # type: ignore[arg-type]

    for place in ("models", "run"):
        monkeypatch.setattr(f"training.replay.{place}.learn_night", learn)
    return found


def test_a_first_night_that_was_cut_is_learned_again_with_more_time(
    world: Timeline, tmp_path: Path, nights: list[int]
) -> None:
    cut = run(world, tmp_path / "cut", minutes=0)
    assert cut.night is not None
    assert cut.night.cut
    run(world, tmp_path / "cut", minutes=0)
    assert len(nights) == 1, "as much time leads to as much"
    again, whole = (run(world, tmp_path / name) for name in ("cut", "whole"))
    same(again, whole)
    assert again.night is not None
    assert not again.night.cut
    run(world, tmp_path / "cut", minutes=0)
    assert len(nights) == 3, "a whole night stays"


def test_all_parts_of_a_night_end_with_its_time(
    world: Timeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def noted(name: str) -> Callable[..., object]:
        honest = getattr(lesson, name)

        def told(*learned: object, stop_at: float, **options: object) -> object:
            asked.append(stop_at)
            return honest(*learned, stop_at=stop_at, **options)

        return told

    for name in ("fit", "warm"):
        monkeypatch.setattr(lesson, name, noted(name))
    end = time.monotonic() + 1000
    learned = models.learn_night(world, world.start, seed=3, stop_at=end)
    for_most, for_watched, for_held_out = asked
    assert for_most < for_watched < for_held_out == end
    assert (learned.passes, learned.cut) == (tiny().learning.epochs, False)
    cut = models.learn_night(world, world.start, seed=3, stop_at=time.monotonic())
    assert cut.cut
    assert cut.passes < 1


def test_nights_last_no_longer_than_a_first_one_that_was_cut(
    world: Timeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.replay.run.FIRST_NIGHT", 0.0)
    run(world, tmp_path, "live/never")
    allowed: list[float] = []
    honest = models.learn_night

    def learn(timeline: Timeline, moment: int, *, seed: int, stop_at: float) -> models.Learned:
        allowed.append(stop_at - time.monotonic())
        return honest(timeline, moment, seed=seed, stop_at=stop_at)

    monkeypatch.setattr(models, "learn_night", learn)
    found = run(world, tmp_path, "live/nightly").outcomes[0]
    assert len(found.ranks) == len(world.targets), "a night as short as the first is as good"
    assert max(allowed) <= 0


def test_what_a_cut_night_led_to_goes_with_it(
    world: Timeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.replay.run.FIRST_NIGHT", 0.0)
    cut = run(world, tmp_path / "cut")
    assert [len(outcome.ranks) for outcome in cut.outcomes] == [len(world.targets)] * 3
    baseline = next(tmp_path.glob("cut/*/popular-*/*/*.npz")).stat().st_mtime_ns
    monkeypatch.undo()
    monkeypatch.setenv("NEARLINE_TRAIN_THREADS", "1")
    monkeypatch.setattr(models, "load_recipe", lambda size: tiny())
    same(run(world, tmp_path / "cut"), run(world, tmp_path / "whole"))
    kept = next(tmp_path.glob("cut/*/popular-*/*/*.npz")).stat().st_mtime_ns
    assert kept == baseline, "no night changes what is popular"


def test_a_night_that_the_end_cuts_is_not_played_with(
    world: Timeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(world, tmp_path, "live/never")
    honest = models.learn_night

    def slow(timeline: Timeline, moment: int, *, seed: int, stop_at: float) -> models.Learned:
        found = honest(timeline, moment, seed=seed, stop_at=stop_at)
        return found._replace(cut=True)  # a night that takes all the time that it is given

    monkeypatch.setattr(models, "learn_night", slow)
    cut = run(world, tmp_path, "live/nightly", minutes=0.05).outcomes[0]
    first_midnight = (world.start // DAY_US + 1) * DAY_US
    assert len(cut.ranks) == len(world.between(world.start, first_midnight))
    monkeypatch.setattr(models, "learn_night", honest)
    whole = run(world, tmp_path, "live/nightly").outcomes[0]
    assert len(whole.ranks) == len(world.targets)


def test_a_run_ends_within_a_day_and_goes_on_there(
    world: Timeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(world, tmp_path / "whole", "popular")
    now = count(time.time())  # a second for each stretch, which are hours
    clock = SimpleNamespace(time=lambda: next(now), process_time=time.process_time)
    monkeypatch.setattr("training.replay.play.time", clock)
    asked = parse_policies("popular", step="hour")
    options = {"seed": 3, "workers": 1, "folder": tmp_path / "cut"}
    cut = replay(world, asked, max_minutes=0.5, **options)  # type: ignore[arg-type]
    assert 0 < len(cut.outcomes[0].ranks) < len(world.targets)
    reached = max(int(path.stem) for path in tmp_path.glob("cut/*/popular-*/*/*.npz"))
    assert reached not in marks(world)
    monkeypatch.setattr("training.replay.play.time", time)
    again = replay(world, asked, max_minutes=5, **options)  # type: ignore[arg-type]
    assert len(again.outcomes[0].ranks) == len(whole.outcomes[0].ranks)


def test_whatever_changes_figures_changes_the_key(
    world: Timeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = pa.array([f"another {n}" for n in range(len(world.known_since))])
    place = world.catalogue.schema.get_field_index("title")
    renamed = world.catalogue.set_column(place, "title", titles)
    data = world.everything
    others = [
        key(world, 4),
        key(replace(world, everything=replace(data, values=data.values + 1)), 3),
        key(replace(world, catalogue=renamed), 3),
        key(replace(world, positive=~world.positive), 3),
        key(replace(world, start=world.start + 1), 3),
    ]
    for name, value in (("MAX_TRAIN_MINUTES", "7"), ("TRAIN_THREADS", "2"), ("REPLAY_DAYS", "3")):
        with monkeypatch.context() as patch:
            patch.setenv(f"NEARLINE_{name}", value)
            settings.cache_clear()
            others.append(key(world, 3))
    settings.cache_clear()
    assert len({key(world, 3), *others}) == 1 + len(others)
    assert key(world, 3) == key(replace(world, catalogue=world.catalogue.slice(0)), 3)
    assert key(world, 3) == key(world, 3, workers=2), "a set number of threads is the same"


@pytest.mark.parametrize(
    ("damaged", "left"),
    [
        ("night.json", 0.0),
        ("night.line", 0.5),
        ("daily-plain-*/*/*.line", 0.5),
        ("daily-plain-*/*/*.npz", 0.5),
    ],
)
def test_a_damaged_file_is_made_anew(
    world: Timeline,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damaged: str,
    left: float,
) -> None:
    whole = run(world, tmp_path)
    path = next(tmp_path.glob(f"*/{damaged}"))
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content))])
    same(run(world, tmp_path), whole)
    assert "cannot be read" in caplog.text
    caplog.clear()
    same(run(world, tmp_path), whole)
    assert caplog.text == ""


def test_a_state_that_is_asked_for_later_is_played_beside_the_others(
    world: Timeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(world, tmp_path, "frozen/daily-plain,live/daily-plain")
    asked: list[object] = []
    honest = models.ModelLine.scorer
    monkeypatch.setattr(
        models.ModelLine,
        "scorer",
        lambda line, state, *rest: asked.append(state) or honest(line, state, *rest),
    )
    more = run(world, tmp_path, "live/daily-plain,nightly/daily-plain,frozen/daily-plain")
    assert set(asked) == {"nightly"}
    same(replace(more, outcomes=[more.outcomes[2], more.outcomes[0]]), first)


def test_a_baseline_by_the_hour_is_not_the_one_by_the_day(world: Timeline, tmp_path: Path) -> None:
    options = {"seed": 3, "workers": 1, "max_minutes": 5}
    by_step = {
        step: replay(
            world,
            parse_policies("popular", step=step),
            folder=tmp_path,
            **options,  # type: ignore[arg-type]
        )
        for step in ("day", "hour")
    }
    ages = {step: played.outcomes[0].model_ages.max() for step, played in by_step.items()}
    assert ages["hour"] < DAY_US // 24 <= ages["day"]


class Trouble(Run):
    """A run whose lines never come: one fails, the others wait and tell who waits."""

    def line(self, clock: Clock, path: Path | None = None) -> Line:
        if clock.name == "popular_1d":
            while len(list(self.folder.glob("waits-*"))) == 0:
                time.sleep(0.01)
            raise ArithmeticError("no such luck")
        (self.folder / f"waits-{os.getpid()}").touch()
        time.sleep(3600)
        raise AssertionError


def play_in_trouble(world: Timeline, folder: Path, *clocks: str) -> None:
    tasks = [Task(Clock(name), (("live", "full"),), folder / name) for name in clocks]
    play_in_turn(Trouble(world, folder, seed=3), tasks, workers=2)


def waiting(folder: Path) -> list[int]:
    return [int(path.name.partition("-")[2]) for path in folder.glob("waits-*")]


def ends(process: int) -> bool:
    """Whether a process is over, or will soon be."""
    for _ in range(1000):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def test_the_error_of_one_worker_ends_all(world: Timeline, tmp_path: Path) -> None:
    with pytest.raises(ArithmeticError, match="no such luck"):
        play_in_trouble(world, tmp_path, "popular", "popular_1d")
    (other,) = waiting(tmp_path)
    assert ends(other)


def test_workers_end_with_the_run_that_began_them(world: Timeline, tmp_path: Path) -> None:
    parent = get_context("spawn").Process(
        target=play_in_trouble, args=(world, tmp_path, "popular", "popular_7d")
    )
    parent.start()
    while len(waiting(tmp_path)) < 2:
        assert parent.is_alive()
        time.sleep(0.02)
    os.kill(int(parent.pid or 0), signal.SIGKILL)
    parent.join()
    assert [ends(worker) for worker in waiting(tmp_path)] == [True, True]
