from collections.abc import Callable
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
import torch

from nearline.sequence import Vocabulary
from nearline.windows import HOUR
from training import drift as drifting
from training.dataset import Interactions, interactions
from training.drift import changed_share, judged, sampled
from training.model import Model, ModelConfig

Events = Callable[[str], pa.Table]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("changed", "hours", "past"),
    [(0.25, 35, False), (0.26, 1, True), (0.0, 36, True)],
    ids=["within both", "too far", "too old"],
)
def test_it_is_past_a_limit_or_within_both(changed: float, hours: int, past: bool) -> None:
    assert judged(changed, 9, hours * HOUR).past is past


@pytest.mark.usefixtures("home")
def test_it_says_how_far_and_how_old() -> None:
    told = str(judged(0.123, 9, timedelta(hours=5)))
    assert told == "12.3% of the night's lists changed (at most 25%), 5 h after it (at most 36 h)"


def model(items: int, seed: int) -> Model:
    torch.manual_seed(seed)
    config = ModelConfig(
        items=items,
        types=1,
        content_width=1,
        dim=8,
        heads=1,
        layers=1,
        length=4,
        dropout=0.5,
        content_buckets=16,
        id_dropout=0.1,
        temperature=0.1,
    )
    made = Model(config, torch.ones(items, 1, dtype=torch.int64))
    made.item_tower.touch(np.arange(items))
    return made


@pytest.fixture
def data(events: Events) -> Interactions:
    """Three users, who have touched one, two and three of 40 items."""
    rows = "a i00 view 0\n b i00 view 0\n b i01 view 9\n c i00 view 0\n c i01 view 5\n c i02 view 6"
    vocabulary = Vocabulary(tuple(f"i{n:02}" for n in range(40)), ("view",))
    return interactions(events(rows), vocabulary, ["view"])


def test_the_newest_state_of_each_user_is_asked(
    data: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sorted(sampled(data)) == [0, 2, 5]
    monkeypatch.setattr(drifting, "SAMPLE", 2)
    assert len(sampled(data)) == 2
    assert set(sampled(data)) < {0, 2, 5}


def test_the_same_model_has_not_moved_and_another_has(data: Interactions) -> None:
    states, now = sampled(data), int(data.times.max()) + 1
    assert changed_share(model(40, 1), model(40, 1), data, states, now=now) == 0
    assert changed_share(model(40, 1), model(40, 2), data, states, now=now) > 0.2
    assert changed_share(model(40, 1), model(40, 2), data, states[:0], now=now) == 0


def test_what_a_user_has_touched_is_in_no_list(data: Interactions) -> None:
    lists = drifting._lists(model(12, 1), data, np.array([0, 2, 5]), int(data.times.max()) + 1)
    assert lists.shape == (3, 10)
    assert (0 in lists[0], set(lists[1]) & {0, 1}) == (False, set())


def test_it_is_the_share_of_the_nights_list_that_is_gone(
    data: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = np.array([[1, 2], [3, 4]]), np.array([[2, 1], [3, 9]])
    monkeypatch.setattr(drifting, "_lists", lambda each, *_: each)
    assert changed_share(ours, theirs, data, sampled(data), now=0) == 0.25  # type: ignore[arg-type]
