from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import torch

from nearline.sequence import Vocabulary
from training.dataset import Interactions, arranged, interactions
from training.evaluation import Evaluation, drawn, encode, evaluate, interval, model_scorer
from training.model import Model, ModelConfig

VOCABULARY = Vocabulary(tuple("abcd"), ("view",))
Events = Callable[[str], pa.Table]

ROWS = """
    u1 a view 0
    u1 b view 10
    u1 c view 20
    u2 d view 5
    u2 a view 15
"""


def constant(*scores: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda targets: np.tile(np.array(scores, dtype=np.float32), (len(targets), 1))


def test_ranks_leave_out_what_was_touched(events: Events) -> None:
    data = interactions(events(ROWS), VOCABULARY, ["view"])
    found = evaluate(constant(9, 1, 2, 8), data, data.targets(), items=4)
    # u1: a is touched, then a and b; u2: d is touched.
    assert found.ranks.tolist() == [2, 1, 0]
    assert found.users.tolist() == [0, 0, 1]
    assert found.shown.all()


def test_equal_scores_are_ordered_by_row(events: Events) -> None:
    data = interactions(events(ROWS), VOCABULARY, ["view"])
    assert evaluate(constant(1, 1, 1, 1), data, data.targets(), items=4).ranks.tolist() == [0, 0, 0]


def test_a_score_that_is_no_number_is_a_miss(events: Events) -> None:
    data = interactions(events(ROWS), VOCABULARY, ["view"])
    nothing = constant(np.nan, np.nan, np.nan, np.nan)
    found = evaluate(nothing, data, data.targets(), items=4)
    assert found.ranks.tolist() == [4, 4, 4]
    assert not found.shown.any()


def test_figures() -> None:
    found = Evaluation(np.array([0, 1, 10, 3]), np.array([0, 0, 1, 2]), np.array([True, False]))
    metrics = found.metrics(seed=0)
    assert metrics["recall@10"] == 0.75
    assert metrics["mrr@10"] == pytest.approx((1 + 1 / 2 + 1 / 4) / 4)
    assert metrics["ndcg@10"] == pytest.approx((1 + 0.63093 + 0.430677) / 4, abs=1e-5)
    assert metrics["coverage@10"] == 0.5
    assert (metrics["targets"], metrics["users"]) == (4, 3)
    for name in ("ndcg@10", "recall@10", "mrr@10"):
        assert metrics[f"{name}_low"] < metrics[name] < metrics[f"{name}_high"]


def test_other_cuts_and_parts() -> None:
    ranks, users = np.array([0, 4, 12, 30]), np.array([0, 0, 1, 2])
    parts = {"cold items": np.array([True, False, False, True]), "none": np.zeros(4, bool)}
    found = Evaluation(ranks, users, np.ones(2, bool), segments=parts)
    metrics = found.metrics(seed=0)
    assert [metrics[f"recall@{cut}"] for cut in (1, 5, 10, 20)] == [0.25, 0.5, 0.5, 0.75]
    assert metrics["mrr@20"] == pytest.approx((1 + 1 / 5 + 1 / 13) / 4, abs=1e-6)
    assert metrics["ndcg@1"] == 0.25
    assert (metrics["ndcg@10 of cold items"], metrics["targets of cold items"]) == (0.5, 2)
    assert metrics["ndcg@10 of cold items_low"] <= 0.5 <= metrics["ndcg@10 of cold items_high"]
    assert metrics["recall@10 of cold items_low"] <= metrics["recall@10 of cold items"]
    assert metrics["targets of none"] == 0
    assert "ndcg@10 of none" not in metrics, "there is nothing to tell"
    fewer = found.only(np.array([False, True, True, True]))
    assert fewer.segments["cold items"].tolist() == [False, False, True]


def test_lists_are_the_best_rows(events: Events) -> None:
    data = interactions(events(ROWS), VOCABULARY, ["view"])
    found = evaluate(constant(9, 1, np.nan, 8), data, data.targets(), items=4)
    assert found.lists.shape == (3, 10)
    # The item that is asked for is never left out; what is no number is in no list.
    shown = [sorted(row[row >= 0].tolist()) for row in found.lists]
    assert shown == [[1, 3], [3], [0, 1]]


def test_nothing_to_measure_is_all_zero() -> None:
    nothing = Evaluation(np.zeros(0, int), np.zeros(0, int), np.zeros(3, bool))
    assert set(nothing.metrics(seed=0).values()) == {0.0}


def test_users_not_events_are_drawn_for_the_interval() -> None:
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(20), 50)
    together = np.repeat(rng.random(20), 50)
    alone = rng.permutation(together)
    low, high = interval(together, users, seed=1)
    narrow_low, narrow_high = interval(alone, np.arange(1000), seed=1)
    assert high - low > 3 * (narrow_high - narrow_low)
    assert interval(together, users, seed=1) == (low, high)


def events_of(users: int, each: int) -> Interactions:
    """`each` events of `users` users on as many items, a second apart; all but the first count."""
    count = users * each
    rows = np.arange(count)
    return arranged(
        tuple(f"u{user}" for user in range(users)),
        rows // each,
        rows % each + 1,
        np.ones(count, dtype=np.int64),
        1_000_000 * (rows % each * users + rows // each),
        np.ones(count, dtype=np.int64),
        np.ones(count, dtype=bool),
    )


def test_as_much_is_asked_as_a_large_catalogue_allows() -> None:
    data = events_of(100, 101)
    targets = data.targets()
    whole, some, least = (
        drawn(data, targets, items=items, scores=400_000_000) for items in (1000, 100_000, 10**9)
    )
    assert (whole == targets).all()
    assert len(set(some)) == 4000
    assert (np.diff(some) > 0).all()
    assert len(least) == 2000


def test_slices_that_overlap_are_asked_for_the_same() -> None:
    data, hour = events_of(100, 202), 3_600_000_000  # five hours and a half
    one, next_one = (
        set(
            drawn(data, data.targets(since=n * hour, before=n * hour + 4 * hour), items=2, scores=2)
        )
        for n in (0, 1)
    )
    assert len(one) == len(next_one) == 2000
    assert len(one & next_one) > 1400, "three of four hours are in both"


def test_the_interval_of_many_users_is_as_wide_as_theory_has_it() -> None:
    values = np.random.default_rng(0).random(40_000)
    low, high = interval(values, np.arange(40_000), seed=1)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 200, rel=0.15)
    assert low < values.mean() < high


def make_model() -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = ModelConfig(4, 1, 2, 8, 2, 2, 3, 0.1, 16, 0.1, 0.05)
        return Model(config, torch.randint(1, 17, (4, 2)))


@pytest.mark.parametrize(
    "later",
    [
        "u1 b view 25",
        "u1 a view 20\n u1 b view 21",
        "u1 d view 20",
    ],
)
def test_what_happens_at_that_moment_or_later_changes_no_prediction(
    events: Events, later: str
) -> None:
    """The event on d at 20 is foreseen alike whatever else happens at 20 or after it."""
    past = "u1 a view 0\n u1 b view 10\n u1 c view 12\n u2 a view 3\n"
    model = make_model().eval()

    def state(rows: str) -> np.ndarray:
        data = interactions(events(past + rows), VOCABULARY, ["view"])
        then = data.times == data.times.min() + 20_000_000
        target = np.flatnonzero(then & (data.items == 4))[:1]
        return encode(model, model.item_tower().detach(), data, target)

    alone = state("u1 d view 20")
    np.testing.assert_array_equal(state(f"u1 d view 20\n {later}"), alone)
    assert not np.array_equal(state("u1 d view 20\n u1 b view 19"), alone)


def test_the_order_of_targets_does_not_matter(events: Events) -> None:
    data = interactions(events(ROWS), VOCABULARY, ["view"])
    model, targets = make_model(), data.targets()
    score = model_scorer(model, data)
    np.testing.assert_allclose(score(targets)[::-1], score(targets[::-1]), rtol=1e-5)
