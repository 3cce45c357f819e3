"""What each source proposed at a moment: what the user had touched left out, best first."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch

from nearline.sequence import Vocabulary
from training.baselines import Neighbours
from training.dataset import interactions
from training.evaluation import model_scorer
from training.model import Model, ModelConfig
from training.ranking.candidates import Retrieval

ITEMS = ("a", "b", "c", "d", "e")
A, B, C, D, E = range(5)


def test_each_source_proposes_what_is_new_to_the_user(events: Callable[[str], pa.Table]) -> None:
    data = interactions(
        events("u1 a play 0\n u1 b play 60\n u1 c play 120\n u2 a play 0\n u2 d play 60"),
        Vocabulary(ITEMS, ("play",)),
        ["play"],
    )
    torch.manual_seed(1)
    shape = {"dim": 8, "heads": 2, "layers": 1, "length": 4, "dropout": 0.0}
    content = {"content_buckets": 16, "content_width": 2, "id_dropout": 0.0, "temperature": 0.1}
    config = ModelConfig(items=5, types=1, **shape, **content)  # type: ignore[arg-type]
    model = Model(config, torch.ones(5, 2, dtype=torch.int64)).eval()
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
