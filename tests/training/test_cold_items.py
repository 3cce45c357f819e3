from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from nearline.settings import settings
from training.evaluation import encode
from training.learning import fit, reproducible
from training.model import Model
from training.neighbours import sums
from training.protocols import new_model
from training.recipe import load_recipe
from training.sequences import as_interactions, vocabulary_of

ITEMS, TASTES, COLD = 40, 4, 4
SHAPE = {"dim": 16, "heads": 2, "layers": 1, "length": 10, "dropout": 0.1, "id_dropout": 0.2}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NEARLINE_TRAIN_THREADS", "1")
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_an_item_that_nobody_touched_is_found_by_its_picture() -> None:
    """Users keep to one of four tastes; the last four items, one of each, were never touched."""
    rng = np.random.default_rng(0)
    taste = np.arange(ITEMS) % TASTES
    pictures = rng.normal(0, 0.3, (ITEMS, 8)).astype(np.float32)
    pictures[np.arange(ITEMS), taste] += 1.5
    known = np.arange(ITEMS - COLD)
    users = {
        f"u{user}": [f"i{n:02}" for n in rng.permutation(known[taste[known] == user % TASTES])[:6]]
        for user in range(120)
    }
    vocabulary = vocabulary_of(users | {"all": [f"i{n:02}" for n in range(ITEMS)]})
    data = as_interactions(users, vocabulary)
    recipe = load_recipe("small")
    learning = recipe.learning.model_copy(update={"epochs": 12, "batch_tokens": 128})
    with reproducible(1):
        blind = new_model(recipe.model.model_copy(update=SHAPE), np.ones((ITEMS, 1), np.int64))
        config = replace(blind.config, given=(0, 8, 0), id_dropout=SHAPE["id_dropout"])
        model = Model(config, torch.ones((ITEMS, 1), dtype=torch.int64), torch.tensor(pictures))
        fit(model, data, data.targets(), learning, watch=None, seed=1)
    vectors = model.eval().item_tower().detach()
    tower = model.item_tower
    said = (tower.content() + tower.loan * sums(vectors, tower.loans)).detach()
    message = "that nobody wanted them was not learned"
    torch.testing.assert_close(vectors[-COLD:], said[-COLD:], msg=message)
    assert not torch.allclose(vectors[:-COLD], said[:-COLD])
    last = np.flatnonzero(np.append(data.users[1:] != data.users[:-1], True))
    matrix = model.item_matrix().detach().numpy()
    scores = encode(model, vectors, data, last) @ matrix.T
    wanted = np.array([int(name[1:]) % TASTES for name in data.user_ids])
    assert (scores[:, -COLD:].argmax(axis=1) == wanted).mean() > 0.9
    own = np.take_along_axis(scores, (ITEMS - COLD + wanted)[:, None], axis=1)
    other = taste[None, :] != wanted[:, None]
    assert (own > np.where(other, scores, -1).max(axis=1, keepdims=True)).mean() > 0.9
