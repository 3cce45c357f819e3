"""What is repeated of older events, and which items a target is compared with."""

import numpy as np
import pytest

from training.dataset import Interactions
from training.learning import replay
from training.model import Model
from training.protocols import new_model
from training.recipe import load_recipe
from training.sequences import as_interactions, vocabulary_of
from training.teacher import asked_for

ITEMS = 6


@pytest.fixture
def data() -> Interactions:
    """Twenty users each who turn from item 0 to 1, and from 2 to 3; one from 0 over 1 to 4."""
    users = {f"a{n}": ["0", "1"] for n in range(20)} | {f"b{n}": ["2", "3"] for n in range(20)}
    return as_interactions(users | {"new": ["0", "1", "4"]}, vocabulary_of({"u": list("012345")}))


@pytest.fixture
def model() -> Model:
    return new_model(load_recipe("small").model, np.ones((ITEMS, 1), dtype=np.int64))


def parts(data: Interactions) -> tuple[np.ndarray, np.ndarray]:
    """The targets of the newest user, and all others."""
    targets = data.targets()
    newest = data.users[targets] == data.user_ids.index("new")
    return targets[newest], targets[~newest]


def test_only_items_that_are_asked_for_are_compared(model: Model, data: Interactions) -> None:
    new, _ = parts(data)
    assert asked_for(model, data, new).tolist() == [False, True, False, False, True, False]


def test_users_are_repeated_by_how_likely_their_targets_are(data: Interactions) -> None:
    _, old = parts(data)
    likely = np.where(data.items[old] == 4, 1.1, 0.1)  # item 3, of one half of the users
    seeds = [np.random.default_rng(seed) for seed in range(50)]
    drawn = [replay(data, old, 10, rng, likely=likely) for rng in seeds]
    assert all(len(found) == len(np.unique(found)) == 10 for found in drawn)
    # Ten of forty, without replacement: fewer than 1.1 / 1.2 of the first ones.
    assert 0.8 < np.mean([(data.items[found] == 4).mean() for found in drawn]) < 0.92


def test_nothing_is_repeated_of_nothing(data: Interactions) -> None:
    _, old = parts(data)
    rng = np.random.default_rng(0)
    assert len(replay(data, old, 0, rng, likely=np.ones(len(old)))) == 0
    assert len(replay(data, old[:0], 5, rng, likely=np.ones(0))) == 0
