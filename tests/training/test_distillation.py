from typing import Any

import numpy as np
import pytest

from nearline.settings import settings
from training import learning as module
from training.dataset import Interactions
from training.evaluation import model_scorer
from training.learning import reproducible, warm
from training.model import Model
from training.protocols import new_model
from training.recipe import load_recipe
from training.sequences import as_interactions, vocabulary_of

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


@pytest.mark.parametrize(("steps", "expected"), [(1, 4), (2, 20), (100, 60)])
def test_older_events_leave_room_for_the_new_ones(
    steps: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def counted(data: Interactions, old: np.ndarray, count: int, rng: Any) -> np.ndarray:
        asked.append(count)
        return old[:0]

    monkeypatch.setattr(module, "replay", counted)
    users = {f"u{n}": [f"i{(n + step) % 5}" for step in range(4)] for n in range(10)}
    data = as_interactions(users, vocabulary_of(users))
    targets = data.targets()[:12]
    learning = SMALL.learning.model_copy(
        update={"warm_steps": steps, "batch_tokens": 16, "replay_ratio": 5.0}
    )
    with reproducible(0):
        model = new_model(SMALL.model, np.ones((5, 1), dtype=np.int64))
        warm(model, data, targets, targets, learning, seed=1)
    assert asked == [expected]


def test_the_parents_answers_hold_a_fine_tune_back() -> None:
    users = {f"u{n}": [f"i{(7 * n + step) % 40:02}" for step in range(8)] for n in range(300)}
    data = as_interactions(users, vocabulary_of(users))
    targets = data.targets()
    old, new = targets[data.users[targets] < 150], targets[data.users[targets] >= 150]
    for seed in (1, 2):
        free, held = (moved(weight, data, old, new, seed=seed) for weight in (0.0, 30.0))
        assert 0 < held < 0.7 * free
