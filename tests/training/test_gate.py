from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nearline import bundle as names
from nearline.errors import StepFailed
from nearline.sequence import Vocabulary
from training import gate
from training.bundle import Bundle, write_bundle
from training.evaluation import Evaluation
from training.model import Model, ModelConfig
from training.recipe import load_recipe


def evaluation(hits: float, *, users: int = 60, shown: int = 50, seed: int = 0) -> Evaluation:
    """Ten targets a user; a share of `hits` is ranked first, the rest is missed."""
    rng = np.random.default_rng(seed)
    hit = rng.permutation(users * 10) < round(hits * users * 10)
    ranks = np.where(hit, 0, 99)
    return Evaluation(ranks, np.repeat(np.arange(users), 10), np.arange(100) < shown)


def nothing() -> Evaluation:
    return Evaluation(np.zeros(0, int), np.zeros(0, int), np.zeros(100, bool))


@pytest.mark.parametrize(
    ("hits", "baseline", "users", "fresher", "passed", "says"),
    [
        (0.5, 0.2, 60, False, True, "better than the best baseline, popular: NDCG@10 0.5"),
        (0.1, 0.4, 60, True, False, "worse than the best baseline"),
        (0.3, 0.3, 60, False, False, "not better beyond noise"),
        (0.3, 0.3, 60, True, True, "nothing that is live is as fresh"),
        (0.1, 0.4, 5, True, True, "5 users with too few events"),
        (0.1, 0.4, 12, True, False, "worse than the best baseline"),
        (0.3, 0.3, 5, False, True, "5 users with too few events"),
    ],
)
def test_baselines_must_be_beaten_beyond_noise(
    hits: float, baseline: float, users: int, fresher: bool, passed: bool, says: str
) -> None:
    others = {
        "popular": evaluation(baseline, users=users, seed=1),
        "content": evaluation(0.01, users=users, seed=2),
    }
    found = gate.beats_baselines(evaluation(hits, users=users), others, fresher=fresher, seed=0)
    assert found.passed is passed
    assert says in found.reason


def test_without_held_out_events_it_says_that_nothing_was_compared() -> None:
    found = gate.beats_baselines(nothing(), {"popular": nothing()}, fresher=True, seed=0)
    assert found == gate.Check(True, found.reason)
    assert "not compared" in found.reason


def test_no_part_of_users_or_items_may_pay_for_the_others() -> None:
    place = np.arange(1200)
    few = place < 400
    parts = {"cold items": few, "popular items": ~few, "tiny": place < 20}
    champion = replace(evaluation(0.5, users=120, seed=1), segments=parts)
    ranks = np.where(few | (place % 10 == 0), 99, 0)
    unfair = replace(champion, ranks=ranks)
    assert unfair.ndcg.mean() > champion.ndcg.mean()
    how = {"version": "v1", "tolerance": 0.1, "seed": 0}
    found = gate.keeps_segments(unfair, champion, **how)  # type: ignore[arg-type]
    assert not found.passed
    assert "more than 10% worse than v1 for cold items" in found.reason
    fair = gate.keeps_segments(champion, champion, **how)  # type: ignore[arg-type]
    assert fair == gate.Check(True, "not worse beyond noise for any of 2 parts of users and items")


@pytest.mark.parametrize(
    ("hits", "fresher", "passed"),
    [
        (0.5, True, True),
        (0.46, True, True),
        (0.2, True, False),
        (0.5, False, False),
        (0.8, False, True),
    ],
)
def test_the_champion_may_not_be_undercut(hits: float, fresher: bool, passed: bool) -> None:
    champion, told = evaluation(0.5, seed=1), {"version": "v1", "tolerance": 0.1, "seed": 0}
    found = gate.keeps_up(evaluation(hits), champion, fresher=fresher, **told)  # type: ignore[arg-type]
    assert found.passed is passed
    assert "the active release v1" in found.reason
    same = gate.keeps_up(champion, champion, fresher=fresher, **told)  # type: ignore[arg-type]
    assert same.passed, "the same model again"


def test_forgetting_is_refused() -> None:
    told = {"whom": "its parent", "tolerance": 0.1, "seed": 0}
    found = gate.remembers(evaluation(0.1), evaluation(0.6), **told)  # type: ignore[arg-type]
    assert not found.passed
    assert "more than 10% worse than its parent on earlier events" in found.reason


@pytest.mark.parametrize(("users", "passed"), [(2, True), (9, True), (10, False)])
def test_a_handful_of_users_tells_nothing_of_what_is_worse(users: int, passed: bool) -> None:
    bad, good = evaluation(0.1, users=users), evaluation(0.6, users=users)
    told = {"tolerance": 0.1, "seed": 0}
    assert gate.remembers(bad, good, whom="its parent", **told).passed is passed  # type: ignore[arg-type]
    up = gate.keeps_up(bad, good, version="v1", fresher=True, **told)  # type: ignore[arg-type]
    assert up.passed is passed


@pytest.mark.parametrize(("shown", "passed"), [(50, True), (1, False)])
def test_the_same_few_items_for_everyone_are_refused(shown: int, passed: bool) -> None:
    assert gate.covers(evaluation(0.5, shown=shown), floor=0.02).passed is passed


@pytest.mark.parametrize(
    ("shown", "events", "passed"), [(50, 600, True), (24, 600, False), (24, 1201, True)]
)
def test_lists_that_show_far_fewer_items_than_before_are_refused(
    shown: int, events: int, passed: bool
) -> None:
    found = gate.keeps_coverage(
        evaluation(0.5, shown=shown), shown=50, events=events, whom="its parent"
    )
    assert found.passed is passed
    if not passed:
        assert found.reason == "its lists show 24 items, those of its parent 50 (at least 50%)"


def test_one_failure_is_enough_and_comes_first() -> None:
    verdict = gate.judge([gate.Check(True, "fine"), gate.Check(False, "bad")])
    assert verdict == gate.Verdict(False, ["bad", "fine"])
    assert gate.judge([gate.Check(True, "fine")]).promoted


@pytest.fixture
def staged(tmp_path: Path) -> tuple[Path, Model]:
    config = ModelConfig(30, 2, 3, 32, 2, 2, 10, 0.1, 64, 0.1, 0.05)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = Model(config, torch.randint(1, 65, (30, 3)))
    vocabulary = Vocabulary(tuple(f"i{n}" for n in range(30)), ("view", "like"))
    learning = load_recipe("small").learning
    write_bundle(tmp_path, Bundle(model, vocabulary, np.ones(30), "small", learning))
    return tmp_path, model


def test_a_sound_release_answers(staged: tuple[Path, Model]) -> None:
    checks = gate.answers(*staged)
    assert [check.passed for check in checks] == [True] * 4, checks


def test_vectors_that_are_no_numbers_are_refused(staged: tuple[Path, Model]) -> None:
    folder, model = staged
    matrix = np.load(folder / names.ITEM_MATRIX)
    matrix[3, 0] = np.nan
    np.save(folder / names.ITEM_MATRIX, matrix)
    verdict = gate.judge(gate.answers(folder, model))
    assert not verdict.promoted
    assert verdict.reasons[0] == "1 of the 30 item vectors are not finite numbers"


def test_vectors_of_another_length_are_refused(staged: tuple[Path, Model]) -> None:
    folder, model = staged
    np.save(folder / names.ITEM_MATRIX, np.load(folder / names.ITEM_MATRIX) * 2)
    assert "not of length 1" in gate.judge(gate.answers(folder, model)).reasons[0]


def test_an_encoder_of_another_model_is_refused(staged: tuple[Path, Model]) -> None:
    folder, model = staged
    with torch.no_grad():
        model.user_encoder.norm.bias += torch.randn(32)
    verdict = gate.judge(gate.answers(folder, model))
    assert not verdict.promoted
    assert "apart from the model" in verdict.reasons[0]


def test_a_model_that_has_diverged_is_not_written(tmp_path: Path) -> None:
    config = ModelConfig(5, 1, 3, 8, 2, 1, 4, 0.1, 16, 0.1, 0.05)
    model = Model(config, torch.ones(5, 3, dtype=torch.int64))
    with torch.no_grad():
        model.user_encoder.norm.weight.fill_(torch.nan)
    learning = load_recipe("small").learning
    vocabulary = Vocabulary(tuple("abcde"), ("view",))
    with pytest.raises(StepFailed, match=r"user_encoder\.norm\.weight"):
        write_bundle(tmp_path, Bundle(model, vocabulary, np.ones(5), "small", learning))
    assert list(tmp_path.iterdir()) == []
