"""What each source proposed at a moment: what the user had touched left out, best first."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import torch

from nearline.sequence import Vocabulary
from training.baselines import Neighbours
from training.dataset import interactions
from training.evaluation import encode, model_scorer
from training.lending import borrow
from training.model import Model, ModelConfig
from training.ranking import candidates
from training.ranking.candidates import Retrieval

ITEMS = ("a", "b", "c", "d", "e")
A, B, C, D, E = range(5)


def a_model() -> Model:
    shape = {"dim": 8, "heads": 2, "layers": 1, "length": 4, "dropout": 0.0}
    content = {"content_buckets": 16, "content_width": 2, "id_dropout": 0.0, "temperature": 0.1}
    config = ModelConfig(items=5, types=1, **shape, **content)  # type: ignore[arg-type]
    return Model(config, torch.ones(5, 2, dtype=torch.int64)).eval()


def test_each_source_proposes_what_is_new_to_the_user(events: Callable[[str], pa.Table]) -> None:
    data = interactions(
        events("u1 a play 0\n u1 b play 60\n u1 c play 120\n u2 a play 0\n u2 d play 60"),
        Vocabulary(ITEMS, ("play",)),
        ["play"],
    )
    torch.manual_seed(1)
    model = a_model()
    near = Neighbours(np.full((5, 2), -1), np.zeros((5, 2), dtype=np.float32))
    near.rows[A], near.likeness[A] = [D, C], [0.5, 0.2]
    near.rows[B], near.likeness[B] = [C, A], [0.5, 0.4]
    retrieval = Retrieval(data, model, model.item_matrix().detach().numpy(), near)
    third = int(data.targets()[1])
    assert data.items[third] - 1 == C
    [found] = retrieval.lists(np.array([third]), [[(A, 3.0), (E, 2.0)]])
    scores = model_scorer(model, data)(np.array([third]))[0]
    assert [row for row, _ in found["encoder"]] == sorted([C, D, E], key=lambda row: -scores[row])
    assert found["cooccurrence"] == [(C, np.float32(0.5) + np.float32(0.2)), (D, 0.5)]
    assert found["trending"] == [(E, 2.0)]
    assert retrieval.newest(third).tolist() == [A, B]


def test_of_equal_scores_the_first_items_stay(
    events: Callable[[str], pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "POOL", 2)
    data = interactions(
        events("u1 b play 0\n u1 c play 60"), Vocabulary(ITEMS, ("play",)), ["play"]
    )
    model = a_model()
    near = Neighbours(np.full((5, 2), -1), np.zeros((5, 2), dtype=np.float32))
    state = encode(model, model.item_tower().detach(), data, data.targets())[0]
    retrieval = Retrieval(data, model, np.outer([0, 9, 1, 1, 2], state), near)
    [found] = retrieval.lists(data.targets(), [[]])
    assert [row for row, _ in found["encoder"]] == [E, C]


def test_items_alike_by_content_are_proposed_by_what_is_learned_before(
    events: Callable[[str], pa.Table],
) -> None:
    data = interactions(
        events("u1 a play 0\n u1 b play 60\n u1 c play 120\n u2 d play 0"),
        Vocabulary(ITEMS, ("play",)),
        ["play"],
    )
    model, (horror, love, rome, other) = a_model(), range(1, 5)
    words = [[horror, 0], [horror, love], [horror, rome], [love, other], [rome, other]]
    model.item_tower.content.words = torch.tensor(words)
    model.item_tower.touch(np.array([A, B, D]))
    borrow(model)
    near = Neighbours(np.full((5, 1), -1), np.zeros((5, 1), dtype=np.float32))
    retrieval = Retrieval(data, model, model.item_matrix().detach().numpy(), near)
    third = int(data.targets()[1])
    [found] = retrieval.lists(np.array([third]), [[]])
    assert found["alike"] == [(D, pytest.approx(found["alike"][0][1]))]
    assert 0 < found["alike"][0][1] < 1, "it shares the likeness to b with a, which was touched"
    model.item_tower.touch(np.array([C]))
    borrow(model)
    [later] = retrieval.lists(np.array([third]), [[]])
    assert {row for row, _ in later["alike"]} == {C, D}, "nobody is like what nothing is learned of"
