import numpy as np
import pytest
import torch

from training.dataset import Interactions
from training.model import Model
from training.protocols import new_model
from training.recipe import Learning, load_recipe
from training.sequences import as_interactions, vocabulary_of
from training.teacher import Parent, Teacher, constant, training_batches
from training.watching import mean_loss

ITEMS = 60
SMALL = load_recipe("small")
SHAPE = {"dim": 16, "heads": 2, "layers": 1, "length": 10, "dropout": 0.3, "id_dropout": 0.3}


@pytest.fixture
def data() -> Interactions:
    users = {
        f"u{n}": [f"i{(2 * n + step) % ITEMS}" for step in range(3 + n % 5)] for n in range(30)
    }
    return as_interactions(users, vocabulary_of(users))


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    model = new_model(SMALL.model.model_copy(update=SHAPE), np.ones((ITEMS, 1), dtype=np.int64))
    model.item_tower.touch(np.arange(ITEMS))
    return model


def in_batches(tokens: int) -> Learning:
    return SMALL.learning.model_copy(update={"batch_tokens": tokens})


def read_by(model: Model) -> list[int]:
    """Fills up with how many items' vectors are made each time."""
    rows: list[int] = []
    model.item_tower.register_forward_hook(lambda _, __, vectors: rows.append(len(vectors)))
    return rows


def test_what_is_watched_makes_the_items_vectors_once(model: Model, data: Interactions) -> None:
    targets, asked = data.targets(), read_by(model)
    assert len(list(training_batches(model, data, targets, 16))) > 5
    in_many = mean_loss(model, data, targets, in_batches(16))
    assert len(asked) == 1
    assert in_many == pytest.approx(mean_loss(model, data, targets, in_batches(10_000)), rel=1e-5)
    assert mean_loss(model, data, targets[:0], in_batches(16)) == 0


def test_a_parent_makes_the_items_vectors_once(model: Model, data: Interactions) -> None:
    targets = data.targets()
    parent = Parent(model, targets, weight=1.0)
    before, asked = parent.model.item_matrix().detach(), read_by(parent.model)
    teacher = Teacher(model, data, 0.01, 0.0, constant(1), parent.loss)
    for batch in training_batches(model, data, targets, 16):
        teacher.step(batch)
    assert len(asked) == 1
    assert torch.equal(parent.model.item_matrix(), before)
    assert not torch.equal(model.eval().item_matrix(), before)


def test_what_is_watched_is_compared_with_as_few_as_a_step_is(
    model: Model, data: Interactions
) -> None:
    targets, drawn = data.targets(), SMALL.learning.model_copy(update={"negatives": 4})
    rows = read_by(model)
    torch.manual_seed(3)
    first = mean_loss(model, data, targets, drawn.model_copy(update={"batch_tokens": 16}))
    after = torch.rand(1)
    assert max(rows) < ITEMS / 2
    assert first == mean_loss(model, data, targets, drawn.model_copy(update={"batch_tokens": 16}))
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1)), "what is drawn here changes no other draw"
