from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from training import lending
from training.dataset import Interactions
from training.lending import borrow, by_given, lenders
from training.model import Model, ModelConfig
from training.neighbours import Graph
from training.sequences import as_interactions, vocabulary_of
from training.teacher import batch_loss, training_batches

WORDS = torch.tensor([[1, 2, 3], [1, 2, 4], [1, 4, 0], [1, 2, 3], [1, 5, 0]])
CONFIG = ModelConfig(5, 1, 3, 8, 2, 1, 6, 0.0, 6, 0.0, 0.1)
LEARNED = [0, 1, 2, 4]


@pytest.fixture
def model() -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Model(CONFIG, WORDS).eval()
    model.item_tower.touch(np.array(LEARNED))
    borrow(model)
    return model


def test_an_item_of_which_nothing_is_learned_is_its_content_and_what_others_lend(
    model: Model,
) -> None:
    tower = model.item_tower
    items, shares = lenders(model).closest(WORDS[3].numpy())
    assert items.tolist() == [0, 1]
    content, own = tower.content(), tower.content() + tower.delta.weight
    lent = torch.from_numpy(shares).float() @ own[items]
    found = tower()
    torch.testing.assert_close(found[3], content[3] + tower.loan * lent)
    torch.testing.assert_close(found[LEARNED], own[LEARNED])


def test_an_item_with_neighbours_borrows_nothing(model: Model) -> None:
    tower = model.item_tower
    linked = sparse.coo_array(([0.5, 0.5], ([3, 4], [4, 3])), shape=(5, 5)).tocsr()
    tower.link(Graph.of(linked))
    expected = tower.content()[3] + tower.share * 0.5 * (tower.content() + tower.delta.weight)[4]
    torch.testing.assert_close(tower()[3], expected)


def test_in_training_learned_items_are_shown_as_new_ones(model: Model) -> None:
    tower = model.item_tower
    tower.id_dropout = 1.0
    shares = tower.loans.matrix().todense()
    own = (tower.content() + tower.delta.weight).detach().numpy()
    own[3] = tower.content()[3].detach().numpy()
    expected = tower.content().detach().numpy() + 0.5 * shares @ own
    np.testing.assert_allclose(tower.train()().detach(), expected, atol=1e-6)
    assert shares.sum(axis=1).round(5).tolist() == [1, 1, 1, 1, 0], "nobody is like the last"


def test_only_some_items_find_others_anew(model: Model) -> None:
    before = model.item_tower.loans.matrix().todense()
    model.item_tower.touched[0] = False
    borrow(model, np.array([False, False, False, True, False]))
    found = model.item_tower.loans.matrix().todense()
    assert np.flatnonzero(found[3]).tolist() == [1], "nothing is learned of item 0 now"
    np.testing.assert_array_equal(np.delete(found, 3, axis=0), np.delete(before, 3, axis=0))


@pytest.fixture
def data() -> Interactions:
    users = {f"u{n}": [str(LEARNED[(n + m) % 4]) for m in range(4)] for n in range(4)} | {
        "u9": ["3"]
    }
    return as_interactions(users, vocabulary_of(users))


def test_no_step_learns_that_nobody_wants_an_item_that_nobody_could(data: Interactions) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Model(replace(CONFIG, content_width=1), torch.arange(1, 6).unsqueeze(1))
    model.item_tower.touch(np.array(LEARNED))
    batch = next(training_batches(model, data, data.targets(), tokens=100))
    batch_loss(model, data, batch).backward()
    words, delta = model.item_tower.content.bag.weight.grad, model.item_tower.delta.weight.grad
    assert words is not None
    assert delta is not None
    assert words[4].abs().sum() == delta[3].abs().sum() == 0
    assert (words[[1, 2, 3, 5]].abs().sum(dim=1) > 0).all()


GIVEN = torch.tensor([[1, 0, 0, 0], [0.8, 0.6, 0, 0], [0, 1, 0, 1], [1, 0, 0, 1], [0, 0, 1, 0]])
"""Five items, two modalities of two numbers each; the first two lack the second one."""


def test_an_item_whose_words_find_nobody_borrows_by_what_it_was_given() -> None:
    config = replace(CONFIG, content_width=1, given=(2, 0, 2))
    same = torch.ones((5, 1), dtype=torch.int64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Model(config, same, GIVEN.half())
    model.item_tower.touch(np.array([0, 1, 2]))
    borrow(model)
    found = model.item_tower.loans.matrix().todense()
    np.testing.assert_allclose(found[3], np.array([1, 0.8, 1, 0, 0]) / 2.8, atol=1e-3)
    np.testing.assert_allclose(found[0], [0, 1, 0, 0, 0], atol=1e-3)
    assert not found[4].any(), "nobody points its way"


def test_words_that_find_somebody_are_asked_alone() -> None:
    config = replace(CONFIG, given=(2, 0, 2))
    model = Model(config, WORDS, GIVEN.half())
    model.item_tower.touch(np.array(LEARNED))
    borrow(model)
    expected = lenders(model).closest(WORDS[3].numpy())[0]
    assert (
        np.flatnonzero(model.item_tower.loans.matrix().todense()[3]).tolist() == expected.tolist()
    )


def test_of_many_learned_items_every_so_many_th_lends(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(replace(CONFIG, given=(2, 0, 2)), WORDS, GIVEN.half())
    model.item_tower.touch(np.array([0, 1, 2]))
    for most, expected in ((3, [0, 1, 2]), (2, [0, 2]), (1, [0])):
        monkeypatch.setattr(lending, "_MOST_LENDERS", most)
        found = by_given(model)
        assert found is not None
        assert found.items.tolist() == expected
        np.testing.assert_array_equal(found.vectors, GIVEN.half().numpy()[expected])
    assert by_given(Model(CONFIG, WORDS)) is None, "it reads no given vectors"
