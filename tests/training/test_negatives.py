"""Steps that compare their targets with some items, and read no others."""

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from nearline.sequence import PAD
from training.dataset import Batch, Interactions
from training.learning import fit, reproducible
from training.lending import borrow
from training.model import Model, ModelConfig
from training.negatives import Negatives, few_compared
from training.neighbours import Graph
from training.protocols import new_model
from training.recipe import load_recipe
from training.sequences import as_interactions, vocabulary_of
from training.teacher import Parent, batch_loss, training_batches

ITEMS = 60
CONFIG = ModelConfig(ITEMS, 1, 3, 8, 2, 1, 6, 0.0, 40, 0.0, 0.1, given=(4, 0, 2))
LEARNED = np.arange(50)


@pytest.fixture
def model() -> Model:
    """Fifty items were touched, the first ones are neighbours in a row, and all say something."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        words = torch.randint(1, 41, (ITEMS, 3))
        model = Model(CONFIG, words, torch.randn(ITEMS, 6).half()).eval()
    chain = sparse.diags_array([[0.5] * 40, [0.5] * 40], offsets=[-1, 1], shape=(41, 41)).tocsr()
    chain.resize((ITEMS, ITEMS))
    model.item_tower.link(Graph.of(chain))
    model.item_tower.touch(LEARNED)
    borrow(model)
    assert len(model.item_tower.loans.around(torch.tensor([55]))) > 0
    return model


@pytest.fixture
def data() -> Interactions:
    """Forty users who go on from an item to the next one but one, among the first fifty."""
    users = {f"u{n}": [f"{(n + 2 * step) % 50:02d}" for step in range(5)] for n in range(40)}
    return as_interactions(users, vocabulary_of({"all": [f"{n:02d}" for n in range(ITEMS)]}))


def one(model: Model, data: Interactions, tokens: int = 20) -> Batch:
    return next(training_batches(model, data, data.targets(), tokens))


def gradients(model: Model, loss: Tensor) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
    return dict(zip(parameters, found, strict=True))


@pytest.mark.parametrize("rows", [[0, 1, 7, 39, 40, 41, 49, 50, 55, 59], [55], [3], range(ITEMS)])
def test_some_items_have_the_vectors_that_they_have_among_all(
    model: Model, rows: list[int]
) -> None:
    asked = torch.tensor(list(rows))
    some, every = model.item_tower(asked), model.item_tower()[asked]
    torch.testing.assert_close(some, every)
    weights = torch.randn(some.shape, generator=torch.Generator().manual_seed(1))
    pairs = zip(
        *(gradients(model, (v * weights).sum()).items() for v in (some, every)), strict=True
    )
    for (name, found), (_, expected) in pairs:
        torch.testing.assert_close(found, expected, msg=name)


def test_some_items_are_shown_as_new_ones_in_training(model: Model) -> None:
    model.item_tower.id_dropout = 1.0
    asked, tower = torch.tensor([2, 30, 55]), model.item_tower.train()
    torch.testing.assert_close(tower(asked), tower()[asked])


def test_a_step_reads_what_it_needs_and_draws_the_rest(model: Model, data: Interactions) -> None:
    batch = one(model, data)
    negatives = Negatives(model, data, data.targets(), draws=10)
    among, rows = negatives.compared(data, batch)
    assert rows is not None
    assert among is not None
    asked = np.unique(data.items[batch.targets]) - 1
    read = np.setdiff1d(batch.inputs.items, [PAD]) - 1
    assert np.isin(np.union1d(asked, read), rows).all()
    assert len(rows) <= len(np.union1d(asked, read)) + 10
    assert (among[np.isin(rows, asked)] == 1).all()
    assert (rows.diff() > 0).all()
    assert rows.max() < 50, "nothing was learned of the others"


def test_on_average_each_touched_item_counts_once(model: Model, data: Interactions) -> None:
    batch = one(model, data)
    negatives = Negatives(model, data, data.targets()[:30], draws=20)
    total, tries = torch.zeros(ITEMS), 4000
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for _ in range(tries):
            among, rows = negatives.compared(data, batch)
            assert rows is not None
            assert among is not None
            total[rows] += among
    # An item that is drawn evenly alone comes in a fifth of the tries and counts five times then.
    assert (total[:50] / tries - 1).abs().max() < 5 * (5 / tries) ** 0.5
    assert total[50:].sum() == 0


def test_a_step_with_all_items_drawn_is_the_whole_step(model: Model, data: Interactions) -> None:
    batch, everything = one(model, data), Negatives(model, data, data.targets(), draws=10)
    # Each item drawn as often as its chance says: what the draws come to when there are many.
    every = torch.arange(50)
    everything._drawn = lambda: every  # type: ignore[method-assign]
    everything.draws, everything.chances = 50, torch.full((ITEMS,), 1 / 50)
    compared = everything.compared(data, batch)
    parent = Parent(model, data.targets()[::2], 0.7)
    for loss in (batch_loss, parent.loss):
        whole, drawn = loss(model, data, batch), loss(model, data, batch, compared=compared)
        torch.testing.assert_close(drawn, whole)
        expected = gradients(model, whole)
        for name, found in gradients(model, drawn).items():
            torch.testing.assert_close(found, expected[name], msg=name)


def test_nothing_is_drawn_where_there_are_few_items(model: Model, data: Interactions) -> None:
    for draws in (0, 50, 1000):
        assert few_compared(batch_loss, model, data, data.targets(), draws=draws) is batch_loss
    assert few_compared(batch_loss, model, data, data.targets(), draws=49) is not batch_loss


def test_a_model_learns_from_items_that_are_drawn(data: Interactions) -> None:
    learning = load_recipe("small").learning.model_copy(update={"epochs": 30, "negatives": 8})
    content = np.zeros((ITEMS, 1), dtype=np.int64)
    with reproducible(1):
        model = new_model(load_recipe("small").model, content)
        fit(model, data, data.targets(), learning, watch=None, seed=1)
    batch = one(model.eval(), data, tokens=1000)
    states, matrix = model(*map(torch.from_numpy, batch.inputs))
    scores = states[batch.cells] @ matrix.T
    best = scores.argmax(dim=1).numpy()
    assert (best == data.items[batch.targets] - 1).mean() > 0.8
