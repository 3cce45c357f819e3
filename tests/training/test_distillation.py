from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from nearline.settings import settings
from training import learning as module
from training.dataset import Batch, Interactions
from training.evaluation import model_scorer
from training.learning import Warmed, reproducible, warm
from training.model import Model
from training.protocols import new_model
from training.recipe import load_recipe
from training.sequences import as_interactions, vocabulary_of
from training.teacher import batch_loss

SMALL = load_recipe("small")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEARLINE_TRAIN_THREADS", "1")
    settings.cache_clear()


def moved(
    weight: float, data: Interactions, old: np.ndarray, new: np.ndarray, *, seed: int
) -> float:
    """How far a fine-tune moves the scores of old targets."""
    shape = {"dim": 16, "heads": 2, "layers": 1, "length": 10, "dropout": 0.0, "id_dropout": 0.0}
    learning = SMALL.learning.model_copy(
        update={
            "distillation": weight,
            "warm_learning_rate": 0.0005,
            "replay_ratio": 1.0,
            "batch_tokens": 32,
        }
    )
    with reproducible(0):
        content = np.ones((40, 1), dtype=np.int64)
        model: Model = new_model(SMALL.model.model_copy(update=shape), content)
        before = model_scorer(model, data)(old)
        warm(model, data, new, old, learning, seed=seed)
        return float(np.abs(model_scorer(model, data)(old) - before).mean())


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (200, Warmed(steps=25, new=50, repeated=200)),
        (20, Warmed(steps=20, new=50, repeated=120)),
        (4, Warmed(steps=4, new=50, repeated=52)),
        (1, Warmed(steps=1, new=12, repeated=16)),
    ],
)
def test_few_steps_leave_out_older_events_then_new_ones_too(
    most: int, expected: Warmed, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[int] = []

    def told(model: Model, data: Interactions, batch: Batch, **options: Any) -> Tensor:
        learned.extend(batch.targets.tolist())
        return batch_loss(model, data, batch, **options)

    monkeypatch.setattr(module, "batch_loss", told)
    users = {f"u{n}": [f"i{(n + step) % 9}" for step in range(5)] for n in range(100)}
    data = as_interactions(users, vocabulary_of(users))
    targets = data.targets()
    last = data.users[targets] != np.append(data.users[targets[1:]], -1)
    late = data.users[targets] < 50
    new, old = targets[late & last], targets[~late]
    assert (len(new), len(old)) == (50, 200)
    learning = SMALL.learning.model_copy(
        update={"warm_steps": most, "batch_tokens": 16, "replay_ratio": 4.0}
    )
    with reproducible(0):
        model = new_model(SMALL.model, np.ones((9, 1), dtype=np.int64))
        found = warm(model, data, new, old, learning, seed=1)
    assert found == expected
    assert len(learned) == len(set(learned)) == found.new + found.repeated
    assert np.isin(learned, new).sum() == found.new


def test_a_warm_start_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    users = {f"u{n}": [f"i{(n + step) % 9}" for step in range(5)] for n in range(100)}
    data = as_interactions(users, vocabulary_of(users))
    targets = data.targets()
    learning = SMALL.learning.model_copy(update={"batch_tokens": 16, "warm_steps": 99})
    seconds = count()  # one for each look, and a look before each step
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    with reproducible(0):
        model = new_model(SMALL.model, np.ones((9, 1), dtype=np.int64))
        found = warm(model, data, targets[:50], targets[50:], learning, seed=1, stop_at=2)
    assert (found.steps, found.cut) == (3, True)


def test_the_parents_answers_hold_a_fine_tune_back() -> None:
    users = {f"u{n}": [f"i{(7 * n + step) % 40:02}" for step in range(8)] for n in range(300)}
    data = as_interactions(users, vocabulary_of(users))
    targets = data.targets()
    old, new = targets[data.users[targets] < 150], targets[data.users[targets] >= 150]
    for seed in (1, 2):
        free, held = (moved(weight, data, old, new, seed=seed) for weight in (0.0, 30.0))
        assert 0 < held < 0.7 * free
