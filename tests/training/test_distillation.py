import math

import numpy as np
import pytest
import torch

from nearline.settings import settings
from training.dataset import Interactions
from training.evaluation import model_scorer
from training.learning import reproducible, warm
from training.losses import distillation
from training.model import Model
from training.protocols import new_model
from training.recipe import load_recipe
from training.sequences import as_interactions, vocabulary_of

SMALL = load_recipe("small")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEARLINE_TRAIN_THREADS", "1")
    settings.cache_clear()


def test_it_is_the_divergence_from_the_parents_answers() -> None:
    items = torch.eye(2)
    kept, moved = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    parent = torch.tensor([math.e**2, 1.0]) / (math.e**2 + 1)
    expected = float((parent * (parent.log() - parent.flip(0).log())).sum())
    found = distillation(moved, items, kept, items, temperature=0.5)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    same = distillation(kept, items, kept, items, temperature=0.5)
    assert float(same) == pytest.approx(0, abs=1e-6)


def moved(weight: float, data: Interactions, old: np.ndarray, new: np.ndarray) -> float:
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
        warm(model, data, new, old, learning, seed=1)
        return float(np.abs(model_scorer(model, data)(old) - before).mean())


def test_the_parents_answers_hold_a_fine_tune_back() -> None:
    users = {f"u{n}": [f"i{(7 * n + step) % 40:02}" for step in range(8)] for n in range(30)}
    data = as_interactions(users, vocabulary_of(users))
    targets = data.targets()
    old, new = targets[data.users[targets] < 15], targets[data.users[targets] >= 15]
    free, held = (moved(weight, data, old, new) for weight in (0.0, 30.0))
    assert 0 < held < 0.7 * free
