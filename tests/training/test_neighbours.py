from itertools import product

import numpy as np
import pytest
import torch

from training.dataset import Interactions
from training.finetune import link_fresh
from training.model import rearranged
from training.neighbours import REACH, Graph, neighbours, spread
from training.protocols import leave_one_out, new_model
from training.recipe import load_recipe
from training.sequences import as_interactions, vocabulary_of

SEQUENCES = {
    "u1": ["a", "b", "c", "d", "e", "a"],
    "u2": ["b", "c", "f"],
    "u3": ["c", "d", "g", "h"],
    "u4": ["d", "c", "d", "h", "g"],
}
ITEMS = 8


@pytest.fixture
def data() -> Interactions:
    return as_interactions(SEQUENCES, vocabulary_of(SEQUENCES))


@pytest.fixture
def graph(data: Interactions) -> Graph:
    return neighbours(data, np.flatnonzero(data.states >= 0), items=ITEMS, most=ITEMS)


def by_hand(sequences: dict[str, list[str]]) -> np.ndarray:
    """Closeness as its docstring has it, event by event."""
    together = np.zeros((ITEMS, ITEMS))
    rows = {name: row for row, name in enumerate("abcdefgh")}
    for items in sequences.values():
        for later, earlier in product(range(len(items)), repeat=2):
            if 0 < later - earlier <= REACH:
                one, other = rows[items[later]], rows[items[earlier]]
                together[one, other] += 1 / (later - earlier)
                together[other, one] += 1 / (later - earlier)
    sums = np.maximum(together.sum(axis=1), 1)
    return together / np.sqrt(np.outer(sums, sums))


def test_closeness_is_times_together_over_the_mean_of_both(graph: Graph) -> None:
    np.testing.assert_allclose(graph.matrix().todense(), by_hand(SEQUENCES), rtol=1e-6)


def test_nothing_is_known_but_what_is_learned(data: Interactions) -> None:
    learned = leave_one_out(data).learned
    known = neighbours(data, learned, items=ITEMS, most=ITEMS).matrix().todense()
    cut = {user: items[:-2] for user, items in SEQUENCES.items()}
    np.testing.assert_allclose(known, by_hand(cut), rtol=1e-6)
    assert not known[5].any(), "f comes last only"


def test_the_closest_stay_and_those_to_which_an_item_is_among_them(data: Interactions) -> None:
    targets = np.flatnonzero(data.states >= 0)
    whole = neighbours(data, targets, items=ITEMS, most=ITEMS).matrix().todense()
    few = neighbours(data, targets, items=ITEMS, most=1).matrix().todense()
    assert (few == few.T).all()
    for row in range(ITEMS):
        closest = int(whole[row].argmax())
        assert few[row, closest] == whole[row, closest]
        others = np.flatnonzero(few[row])
        assert all(other == closest or whole[other].argmax() == row for other in others)
    assert neighbours(data, targets, items=ITEMS, most=0).matrix().nnz == 0


def test_vectors_go_along_the_graph_and_gradients_come_back(graph: Graph) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(ITEMS, 3, generator=generator, requires_grad=True)
    outer = torch.randn(ITEMS, 3, generator=generator)
    dense = torch.from_numpy(graph.matrix().todense())
    passed = spread(vectors, graph)
    torch.testing.assert_close(passed, dense @ vectors)
    (found,) = torch.autograd.grad(passed, vectors, outer)
    torch.testing.assert_close(found, dense.T @ outer)


def test_other_items_keep_their_neighbours(graph: Graph) -> None:
    rows = torch.tensor([3, -1, 0, 2, -1])
    found = graph.rearranged(rows).matrix().todense()
    whole = np.asarray(graph.matrix().todense())
    for one, other in product(range(5), repeat=2):
        strangers = -1 in (int(rows[one]), int(rows[other]))
        assert found[one, other] == (0 if strangers else whole[rows[one], rows[other]])


def test_at_first_nobody_has_neighbours() -> None:
    empty = Graph.empty(3)
    assert empty.matrix().shape == (3, 3)
    assert len(empty.items) == 0


def test_some_items_get_new_neighbours_and_the_others_keep_theirs(
    data: Interactions, graph: Graph
) -> None:
    learned = leave_one_out(data).learned
    old = neighbours(data, learned, items=ITEMS, most=ITEMS)
    about = np.array([name in "fh" for name in "abcdefgh"])
    found, before, now = (g.matrix().todense() for g in (old.renewed(graph, about), old, graph))
    touched = about[:, None] | about
    assert (found == np.where(touched, now, before)).all()
    assert (before[5].any(), found[5].any()) == (False, True), "f has neighbours now"


def test_an_item_that_came_after_the_night_gets_neighbours_of_its_hours(data: Interactions) -> None:
    night = {user: [i for i in items if i != "h"] for user, items in SEQUENCES.items()}
    known = as_interactions(night, vocabulary_of(night))
    old = neighbours(known, known.targets(), items=ITEMS - 1, most=ITEMS)
    model = new_model(load_recipe("small").model, np.ones((ITEMS - 1, 1), dtype=np.int64))
    model.item_tower.link(old)
    link_fresh(model, known, most=ITEMS)
    assert all(map(torch.equal, model.item_tower.graph, old)), "nothing came after the night"

    rows = torch.tensor([*range(ITEMS - 1), -1])
    grown = rearranged(model, rows, torch.ones((ITEMS, 1), dtype=torch.int64))
    link_fresh(grown, data, most=ITEMS)
    found = grown.item_tower.graph.matrix().todense()
    whole = neighbours(data, data.targets(), items=ITEMS, most=ITEMS).matrix().todense()
    np.testing.assert_allclose(found[-1], whole[-1])
    np.testing.assert_allclose(found[:-1, :-1], old.matrix().todense())
    assert found[-1].any()
    again = rearranged(grown, torch.arange(ITEMS), torch.ones((ITEMS, 1), dtype=torch.int64))
    assert again.item_tower.fresh.tolist() == [False] * (ITEMS - 1) + [True]
