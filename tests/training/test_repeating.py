"""What is repeated of older events, and which items a target is compared with."""

import numpy as np
import pytest
from torch import Tensor

from training.dataset import Batch, Interactions
from training.learning import fit, in_turn, whole_users
from training.model import Model
from training.protocols import new_model
from training.recipe import load_recipe
from training.sequences import as_interactions, vocabulary_of
from training.teacher import asked_for, batch_loss

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


def test_passes_repeat_all_others_before_one_again(data: Interactions) -> None:
    _, old = parts(data)
    drawn = in_turn(data, old, 15, 4, np.random.default_rng(0))
    assert [len(np.unique(found)) for found in drawn] == [15] * 4
    assert len(np.unique(np.concatenate(drawn[:2]))) == 30
    times = np.bincount(np.concatenate(drawn), minlength=len(data))[old]
    assert np.bincount(times).tolist() == [0, 20, 20], "twice once all others came once"
    other = in_turn(data, old, 15, 4, np.random.default_rng(1))
    assert any((one != two).any() for one, two in zip(drawn, other, strict=True))


def test_no_pass_repeats_more_than_there_is(data: Interactions) -> None:
    _, old = parts(data)
    rng = np.random.default_rng(0)
    for found in in_turn(data, old, 100, 2, rng):
        np.testing.assert_array_equal(found, old)
    assert [len(found) for found in in_turn(data, old[:0], 5, 2, rng)] == [0, 0]


def test_a_pass_learns_what_is_its_own(model: Model, data: Interactions) -> None:
    new, old = parts(data)
    learning, told = load_recipe("small").learning, []

    def loss(model: Model, data: Interactions, batch: Batch) -> Tensor:
        told.append(np.sort(batch.targets).tolist())
        return batch_loss(model, data, batch)

    passes = [new, old[:1], new]
    learned = np.concatenate([new, old[:1]])
    made = fit(model, data, learned, learning, watch=None, seed=1, loss=loss, passes=passes)
    assert (made.passes, told) == (3, [part.tolist() for part in passes])


def test_nothing_is_repeated_of_nothing(data: Interactions) -> None:
    _, old = parts(data)
    rng = np.random.default_rng(0)
    assert len(whole_users(data, old, 0, rng)) == 0
    assert len(whole_users(data, old[:0], 5, rng)) == 0
