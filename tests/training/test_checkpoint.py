import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nearline.settings import settings
from training import checkpoint
from training import learning as module
from training.checkpoint import Checkpoint
from training.dataset import Interactions
from training.learning import Fitted, fit, reproducible
from training.model import Model
from training.protocols import leave_one_out, new_model
from training.recipe import Learning, Shape, load_recipe
from training.sequences import as_interactions, vocabulary_of
from training.watching import Watch

PASSES = 5
SMALL = load_recipe("small")
SHAPE = SMALL.model.model_copy(update={"dim": 16, "layers": 1, "content_buckets": 64})
LEARNING = SMALL.learning.model_copy(update={"epochs": PASSES, "patience": PASSES})

State = dict[str, torch.Tensor]


class Killed(BaseException):
    """What the operating system does."""


@pytest.fixture(autouse=True)
def one_thread(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each pass is kept, however short it is."""
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)
    monkeypatch.setenv("NEARLINE_TRAIN_THREADS", "1")
    settings.cache_clear()


def train(
    file: Path | None, *, kill_at: int = 0, learning: Learning = LEARNING, shape: Shape = SHAPE
) -> tuple[State, list[int]]:
    """The weights at the end, and the numbers of the passes that were watched."""
    model, looks, _ = fitted(file, kill_at=kill_at, learning=learning, shape=shape)
    return model.state_dict(), looks


def fitted(
    file: Path | None,
    *,
    kill_at: int = 0,
    learning: Learning = LEARNING,
    shape: Shape = SHAPE,
    stop_at: float = math.inf,
) -> tuple[Model, list[int], Fitted]:
    """A model, the numbers of the passes that were watched, and what `fit` tells of it."""
    sequences = {f"u{n}": [f"i{(7 * n + step) % 40:02}" for step in range(8)] for n in range(30)}
    data = as_interactions(sequences, vocabulary_of(sequences))
    figures = iter([1.0, 3.0, 2.0, 2.5, 2.0])
    looks: list[int] = []

    def figure(model: Model, data: Interactions) -> float:
        looks.append(len(looks) + 1)
        if looks[-1] == kill_at:
            raise Killed
        return next(figures)

    with reproducible(0):
        model = new_model(shape, np.zeros((40, 1), dtype=np.int64))
        watch = Watch("figure", figure, rises=True)
        targets = leave_one_out(data).learned
        how: Any = {"watch": watch, "seed": 1, "checkpoint": file, "stop_at": stop_at}
        return model, looks, fit(model, data, targets, learning, **how)


def same(one: State, other: State) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_killed_training_ends_where_it_would_have_ended(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "training.pt"
    whole, _ = train(None)
    with pytest.raises(Killed):
        train(file, kill_at=4)
    assert [path.name for path in file.parent.iterdir()] == ["training.pt"]
    went_on, looks = train(file)
    assert len(looks) == PASSES - 3
    assert same(whole, went_on)
    assert not file.exists()


def test_another_training_is_not_taken_up(tmp_path: Path) -> None:
    file = tmp_path / "training.pt"
    with pytest.raises(Killed):
        train(file, kill_at=4)
    _, looks = train(file, learning=LEARNING.model_copy(update={"learning_rate": 0.01}))
    assert len(looks) == PASSES
    for told in ({"dropout": 0.1}, {"heads": 1}, {"temperature": 0.2}):
        with pytest.raises(Killed):
            train(file, kill_at=4)
        _, looks = train(file, shape=SHAPE.model_copy(update=told))
        assert len(looks) == PASSES, told


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A clock on which ten seconds go by between two looks at it."""
    ticks = itertools.count(0, 10)
    monkeypatch.setattr(module.time, "monotonic", lambda: next(ticks))
    return ticks


def test_seconds_before_a_kill_count(tmp_path: Path, clock: Iterator[int]) -> None:
    file = tmp_path / "training.pt"
    with pytest.raises(Killed):
        train(file, kill_at=4)
    seconds = torch.load(file, weights_only=True)["state"]["seconds"]
    assert 0 < seconds < next(clock)
    assert fitted(file)[2].seconds > seconds


def test_a_kill_gives_no_more_time(
    tmp_path: Path, clock: Iterator[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(module, "say", said.append)
    file = tmp_path / "training.pt"
    with pytest.raises(Killed):
        train(file, kill_at=4)
    seconds = torch.load(file, weights_only=True)["state"]["seconds"]
    _, looks, told = fitted(file, stop_at=next(clock) + seconds)
    assert (looks, told.passes, told.stopped) == ([1], 4, "time")
    past = f"{seconds / 60:.1f} minutes"
    assert said == [f"train: going on after 3 passes and {past}; 0.0 minutes are left"]


@pytest.mark.parametrize(
    ("patience", "stop_at", "stopped"),
    [(PASSES, math.inf, "epochs"), (2, math.inf, "patience"), (2, 0.0, "time")],
)
def test_what_ended_it_is_told(patience: int, stop_at: float, stopped: str) -> None:
    learning = LEARNING.model_copy(update={"patience": patience})
    assert fitted(None, learning=learning, stop_at=stop_at)[2].stopped == stopped


def test_writing_it_down_takes_a_small_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SHARE", 0.05)
    now = [0.0]

    def save(state: Any, file: Path) -> None:
        now[0] += 1
        file.touch()

    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoint.torch, "save", save)
    kept, kept_after = Checkpoint(tmp_path / "training.pt", "key"), []
    for each in range(60):
        now[0] += 1
        if kept.due():
            kept.save({}, [])
            kept_after.append(each)
    assert kept_after == [0, 20, 40]


def test_a_damaged_file_is_told_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "training.pt"
    file.write_bytes(b"PK\x03\x04 half of it")
    found, looks = train(file)
    assert "begins anew" in caplog.text
    assert len(looks) == PASSES
    assert same(found, train(None)[0])
