from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nearline.errors import BadInput
from nearline.settings import settings
from training import protocols
from training.dataset import Interactions
from training.evaluation import evaluate
from training.learning import fit, reproducible
from training.model import Model
from training.protocols import (
    Split,
    judge_leave_one_out,
    leave_one_out,
    new_model,
    watched_ndcg,
)
from training.recipe import Learning, Recipe, load_recipe
from training.sequences import as_interactions, attribute_ids, vocabulary_of
from training.teacher import newest_tenth
from training.watching import Watch, watched_loss

Sequences = dict[str, list[str]]
TINY: Sequences = {
    "u1": ["a", "b", "c", "d", "e"],
    "u2": ["b", "c", "d"],
    "u3": ["c", "d"],
    "u4": ["e", "a", "e", "a"],
}


@pytest.fixture(autouse=True)
def one_thread(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEARLINE_TRAIN_THREADS", "1")
    settings.cache_clear()


def interactions(sequences: Sequences) -> Interactions:
    return as_interactions(sequences, vocabulary_of(sequences))


def recipe(epochs: int = 2, **learning: float) -> Recipe:
    """The smallest of models."""
    small = load_recipe("small")
    shape = {"dim": 16, "heads": 2, "layers": 1, "length": 10, "content_buckets": 64}
    return Recipe(
        model=small.model.model_copy(update=shape),
        learning=small.learning.model_copy(update={"epochs": epochs, **learning}),
    )


def orderly(users: int = 60) -> Sequences:
    """Each user goes through eight of forty items in the items' order."""
    return {f"u{n}": [f"i{(7 * n + step) % 40:02}" for step in range(8)] for n in range(users)}


def judge(
    sequences: Sequences,
    attributes: Sequences | None = None,
    *,
    seed: int = 1,
    epochs: int = 2,
    minutes: float = 5,
    **learning: float,
) -> Any:
    made = recipe(epochs, **learning)
    return learned(sequences, attributes, made, minutes, seed).figures


def learned(
    sequences: Sequences,
    attributes: Sequences | None,
    made: Recipe,
    minutes: float = 5,
    seed: int = 1,
) -> protocols.Judged:
    return judge_leave_one_out(
        sequences, attributes, made, max_minutes=minutes, seed=seed, name="f"
    )


def test_the_last_is_tested_and_the_one_before_validates() -> None:
    data = interactions(TINY)
    split = leave_one_out(data)
    # Positions: u1 0 to 4, u2 5 to 7, u3 8 and 9, u4 10 to 13.
    assert split.learned.tolist() == [1, 2, 11]
    assert split.validation.tolist() == [3, 6, 12]
    assert split.test.tolist() == [4, 7, 9, 13]


def test_users_of_one_item_and_no_users_split_into_nothing() -> None:
    split = leave_one_out(interactions({"u1": ["a"], "u2": ["b"], "u3": ["a", "b"]}))
    assert [part.tolist() for part in (split.learned, split.validation, split.test)] == [
        [],
        [],
        [3],
    ]


def test_the_history_is_masked_and_the_wanted_item_never() -> None:
    data = interactions(TINY)
    split = leave_one_out(data)

    def best_first(targets: np.ndarray) -> np.ndarray:
        return np.tile(np.array([5, 4, 3, 2, 1], dtype=np.float32), (len(targets), 1))

    # u1 has seen a to d; u2 b and c, so only a is ahead of d; u3 c; u4 e and a, and a comes again.
    found = evaluate(best_first, data, split.test, items=5)
    assert found.ranks.tolist() == [0, 1, 2, 0]
    # One step earlier u1 had seen a, b, c; u2 b; and u4 e and a, whose e comes again.
    found = evaluate(best_first, data, split.validation, items=5)
    assert found.ranks.tolist() == [0, 1, 3]


def weights(sequences: Sequences, epochs: int = 2) -> dict[str, torch.Tensor]:
    """What is learned of a file, up to the test."""
    return learned(sequences, None, recipe(epochs)).model.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_test_item_changes_nothing_that_is_learned() -> None:
    sequences = orderly()
    other = {user: [*items[:-1], items[-2]] for user, items in sequences.items()}
    assert vocabulary_of(sequences) == vocabulary_of(other)
    first = weights(sequences)
    assert same(first, weights(other))
    earlier = {user: [*items[:-3], items[0], *items[-2:]] for user, items in sequences.items()}
    assert not same(first, weights(earlier))


def test_a_planted_leak_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaky(data: Interactions) -> Split:
        split = leave_one_out(data)
        learned = np.sort(np.concatenate([split.learned, split.test[:1]]))
        return Split(learned, split.validation, split.test)

    sequences = orderly()
    other = {user: [*items[:-1], items[-2]] for user, items in sequences.items()}
    monkeypatch.setattr(protocols, "leave_one_out", leaky)
    assert not same(weights(sequences), weights(other))


def test_the_validation_item_only_chooses_the_pass() -> None:
    sequences = orderly()
    other = {u: [*items[:-2], items[0], items[-1]] for u, items in sequences.items()}
    assert same(weights(sequences, epochs=1), weights(other, epochs=1))


def test_the_validation_item_is_read_at_the_test() -> None:
    sequences = orderly()
    other = {u: [*items[:-2], items[0], items[-1]] for u, items in sequences.items()}
    scores = []
    with reproducible(1):
        for data in (interactions(sequences), interactions(other)):
            learned = weights(sequences, epochs=1)
            config = new_model(recipe().model, np.zeros((40, 1), dtype=np.int64)).config
            model = Model.restored(config, learned)
            test = leave_one_out(data).test
            scores.append(protocols.model_scorer(model, data)(test))
    assert (np.abs(scores[0] - scores[1]).max(axis=1) > 0).all()


def test_an_order_is_learned_and_the_figures_are_told() -> None:
    sequences = orderly() | {"once": ["i00"]}
    found = judge(sequences, epochs=40, patience=40, learning_rate=0.01)
    assert found["recall@10"] > 0.9
    assert 0 < found["ndcg@10"] <= 1
    assert (found["users"], found["items"], found["left_out"]) == (60, 40, 1)
    assert found["epochs"] == 40
    assert found["train_seconds"] > 0


def test_the_same_seed_gives_the_same_figures() -> None:
    one, again, other = (judge(orderly(), seed=seed) for seed in (3, 3, 4))
    for found in (one, again, other):
        del found["train_seconds"]
    assert one == again
    assert one != other


def test_attributes_tell_of_items() -> None:
    sequences = orderly()
    vocabulary = vocabulary_of(sequences)
    attributes = {item: [item[-1]] for item in vocabulary.item_ids}
    found = judge(sequences, attributes)
    assert found["ndcg@10"] != judge(sequences)["ndcg@10"]
    content = attribute_ids(attributes, vocabulary, buckets=64)
    assert new_model(recipe().model, content).item_tower.id_dropout == 0.05
    assert new_model(recipe().model, np.zeros((40, 1), dtype=np.int64)).item_tower.id_dropout == 0


def test_time_ends_the_training() -> None:
    found = judge(orderly(), epochs=50, minutes=0)
    assert found["epochs"] == 1


@pytest.mark.parametrize(
    "sequences", [{"u1": ["a"]}, {"u1": ["a", "b", "c"], "u2": ["c", "a"]}, {}]
)
def test_too_little_is_refused(sequences: Sequences) -> None:
    with pytest.raises(BadInput, match=r"none of \d users has four items"):
        judge(sequences)


def test_many_users_are_watched_by_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "MOST_WATCHED", 7)
    asked: list[np.ndarray] = []

    def count(model: Model, data: Interactions, targets: np.ndarray) -> Any:
        asked.append(targets)
        return measure(model, data, targets)

    measure = protocols.measure
    monkeypatch.setattr(protocols, "measure", count)
    data = interactions(orderly())
    model = new_model(recipe().model, np.zeros((40, 1), dtype=np.int64))
    validation = leave_one_out(data).validation
    for seed in (1, 1, 2):
        watch = watched_ndcg(validation, seed=seed)
        assert 0 <= watch.figure(model, data) <= 1
    assert len(set(asked[0].tolist())) == 7
    assert set(asked[0]) <= set(validation)
    assert asked[0].tolist() == asked[1].tolist() != asked[2].tolist()


def learn(figures: list[float], *, rises: bool, patience: int) -> tuple[int, int]:
    """Passes made, and the number of the pass whose weights stay."""
    data = interactions(orderly(10))
    left, states = iter(figures), []

    def figure(model: Model, data: Interactions) -> float:
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        return next(left)

    learning: Learning = recipe(len(figures), patience=patience).learning
    with reproducible(0):
        model = new_model(recipe().model, np.zeros((40, 1), dtype=np.int64))
        watch = Watch("figure", figure, rises=rises)
        passes = fit(model, data, leave_one_out(data).learned, learning, watch=watch, seed=0).passes
    (stayed,) = [n for n, state in enumerate(states) if same(state, model.state_dict())]
    return passes, stayed + 1


@pytest.mark.parametrize(
    ("figures", "rises", "patience", "expected"),
    [
        ([1, 3, 2, 2.5, 9], True, 2, (4, 2)),
        ([1, 3, 2, 4, 3], True, 2, (5, 4)),
        ([3, 1, 1, 0.5], False, 1, (3, 2)),
        ([-1, -2], True, 1, (2, 1)),
        # Less than a thousandth is no progress.
        ([4, 3.999, 3.998, 1], False, 2, (3, 1)),
        ([0.1, 0.10005, 0.2], True, 1, (2, 1)),
        # After ten passes a single one without progress does not end it any more.
        ([*range(10), 5, 5, 99], True, 1, (12, 10)),
    ],
)
def test_the_best_pass_is_kept(
    figures: list[float], rises: bool, patience: int, expected: tuple[int, int]
) -> None:
    assert learn(figures, rises=rises, patience=patience) == expected


def test_the_kept_weights_are_an_average_of_the_newest_steps() -> None:
    mean, steps = torch.zeros(1), [torch.tensor([float(step)]) for step in range(1, 1001)]
    for number, step in enumerate(steps, start=1):
        newest_tenth([mean], [step], torch.tensor(number))
    assert 890 < mean.item() < 920
    torch.manual_seed(0)
    noisy = torch.randn(1000)
    for number, step in enumerate(noisy, start=1):
        newest_tenth([mean], [step.unsqueeze(0)], torch.tensor(number))
    assert abs(mean.item()) < 0.3


def test_a_training_that_the_time_ends_tells_how_much_of_a_pass_it_made() -> None:
    data = interactions(orderly(10))
    learned, learning = leave_one_out(data).learned, recipe(3).learning
    found = []
    for stop_at in (0.0, np.inf):
        with reproducible(0):
            model = new_model(recipe().model, np.zeros((40, 1), dtype=np.int64))
            found.append(fit(model, data, learned, learning, watch=None, seed=0, stop_at=stop_at))
    cut, whole = found
    assert (cut.passes, cut.cut) == (1, True)
    assert 0 < cut.made < 1
    assert (whole.passes, whole.made, whole.cut) == (3, 3, False)


def test_nothing_to_watch_keeps_the_last_weights() -> None:
    data = interactions(orderly(10))
    learning = recipe(3, patience=1).learning
    watch = watched_loss(np.zeros(0, dtype=np.int64), learning)
    assert watch is None
    with reproducible(0):
        model = new_model(recipe().model, np.zeros((40, 1), dtype=np.int64))
        started = {name: value.clone() for name, value in model.state_dict().items()}
        fitted = fit(model, data, leave_one_out(data).learned, learning, watch=watch, seed=0)
        assert fitted.passes == 3
    assert not same(started, model.state_dict())
