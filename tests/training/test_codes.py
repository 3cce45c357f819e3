"""Vectors of items that are put together from parts which others share."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from training import codes
from training.codes import Coded, dealt
from training.dataset import Interactions
from training.learning import fit, reproducible
from training.model import Model, ModelConfig, rearranged
from training.neighbours import Graph, neighbours
from training.protocols import new_model
from training.recipe import load_recipe
from training.sequences import as_interactions, vocabulary_of
from training.teacher import training_batches

CONFIG = ModelConfig(6, 1, 2, 8, 2, 1, 6, 0.0, 20, 0.0, 0.1, item_codes=4)


def cliques(items: int, size: int) -> Graph:
    """Items in groups that go together, each with all others of its group."""
    group = np.arange(items) // size
    together = (group[:, None] == group[None, :]) & ~np.eye(items, dtype=bool)
    return Graph.of(sparse.csr_array(together.astype(np.float32)))


@pytest.fixture
def coded() -> Coded:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Coded(6, 8, 4)


@pytest.fixture
def model() -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Model(CONFIG, torch.randint(1, 21, (6, 2))).eval()
    model.item_tower.link(cliques(6, 3))
    model.item_tower.touch(np.array([0, 1, 3, 4]))
    return model


def test_a_vector_is_its_parts_side_by_side(coded: Coded) -> None:
    coded.codes[2] = torch.tensor([7, 0, 4095, 7])
    expected = torch.cat([coded.parts[part, code] for part, code in enumerate([7, 0, 4095, 7])])
    torch.testing.assert_close(coded(torch.tensor([0, 2]))[1], expected)
    torch.testing.assert_close(coded.all()[2], expected)


def test_no_weight_grows_with_the_items() -> None:
    counts = [
        sum(
            p.numel() for p in Model(replace(CONFIG, items=n), torch.ones(n, 2).long()).parameters()
        )
        for n in (6, 600)
    ]
    assert counts[0] == counts[1]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """How many vectors a part has to choose of."""
    monkeypatch.setattr(codes, "CHOICES", 64)
    return 64


def test_items_are_dealt_out_evenly_and_those_that_go_together_lie_close(few: int) -> None:
    found = dealt(cliques(2 * few, 4), 8)
    assert (found.shape, found.dtype) == ((2 * few, 8), np.int16)
    for part in found.T:
        assert (np.bincount(part, minlength=few) == 2).all()
    within = np.abs(found[::4] - found[1::4]).mean()
    assert within < 0.35 * np.abs(found[::4] - np.roll(found[::4], 1, axis=0)).mean()
    np.testing.assert_array_equal(found, dealt(cliques(2 * few, 4), 8))


def test_without_neighbours_items_are_dealt_out_all_the_same(few: int) -> None:
    assert (np.bincount(dealt(Graph.empty(few), 1)[:, 0]) == 1).all()


def test_what_is_learned_later_begins_where_its_neighbours_are(model: Model) -> None:
    tower = model.item_tower
    assert isinstance(tower.delta, Coded)
    kept = tower.delta.codes.clone()
    tower.delta.codes[[0, 1]] = kept[0]  # its two neighbours are alike
    tower.touch(np.array([2, 0]))
    assert torch.equal(tower.delta.codes[2], kept[0])
    assert torch.equal(tower.delta.codes[[3, 4, 5]], kept[[3, 4, 5]])
    tower.link(Graph.empty(6))
    tower.touch(np.array([5]))
    for part, code in enumerate(tower.delta.codes[5].tolist()):
        assert code == tower.delta.parts[part].norm(dim=1).argmin(), "nothing is known of it"


def test_codes_go_with_their_items(model: Model) -> None:
    words, old = torch.ones(3, 2).long(), model.item_tower
    other = rearranged(model, torch.tensor([4, -1, 0]), words).item_tower
    assert isinstance(other.delta, Coded)
    torch.testing.assert_close(other.delta(torch.tensor([0, 2])), old.delta(torch.tensor([4, 0])))
    torch.testing.assert_close(other()[1], other.content()[1])
    again = Model.restored(CONFIG, model.state_dict())
    torch.testing.assert_close(again.item_matrix(), model.item_matrix())


def orderly() -> Interactions:
    """Sixty users who go round forty items."""
    users = {f"u{n}": [f"{(n + step) % 40:02d}" for step in range(8)] for n in range(60)}
    return as_interactions(users, vocabulary_of(users))


def test_a_model_of_codes_learns() -> None:
    data, recipe = orderly(), load_recipe("small")
    shape = recipe.model.model_copy(update={"item_codes": 8})
    learning = recipe.learning.model_copy(update={"epochs": 60})
    with reproducible(1):
        model = new_model(shape, np.zeros((40, 1), dtype=np.int64))
        model.item_tower.link(neighbours(data, data.targets(), items=40, most=4))
        fit(model, data, data.targets(), learning, watch=None, seed=1)
    batch = next(training_batches(model.eval(), data, data.targets(), 1000))
    states, matrix = model(*map(torch.from_numpy, batch.inputs))
    best = (states[batch.cells] @ matrix.T).argmax(dim=1).numpy()
    assert (best == data.items[batch.targets] - 1).mean() > 0.8
