"""A ranker learns a planted order, and none from noise."""

from dataclasses import replace

import numpy as np

from nearline.ranking import COLUMNS
from training.evaluation import Evaluation
from training.ranking.examples import MISSED, Examples
from training.ranking.learning import learn, ranks, scored
from training.ranking.night import compared

REQUESTS, CANDIDATES = 300, 20
PLANTED = COLUMNS.index("item_popularity__velocity")


def requests(seed: int, *, planted: bool) -> Examples:
    """Requests in the encoder's order; where planted, the item of the highest velocity is next."""
    rng = np.random.default_rng(seed)
    rows = rng.random((REQUESTS * CANDIDATES, len(COLUMNS)), dtype=np.float32)
    rows[:, COLUMNS.index("encoder_place")] = np.tile(np.arange(CANDIDATES), REQUESTS)
    wanted = rng.integers(0, CANDIDATES, REQUESTS)
    if planted:
        wanted = rows[:, PLANTED].reshape(REQUESTS, CANDIDATES).argmax(axis=1)
    wanted[::50] = MISSED
    return Examples(rows, np.full(REQUESTS, CANDIDATES), wanted, np.arange(REQUESTS))


def judged(*, planted: bool) -> tuple[Evaluation, Evaluation]:
    """The ranker and the encoder's own order on later requests."""
    later, shown = requests(2, planted=planted), np.ones(CANDIDATES, dtype=bool)
    own = np.where(later.wanted == MISSED, CANDIDATES, later.wanted)
    ranker = learn(requests(1, planted=planted), seed=3)
    found = ranks(scored(ranker, later), later, missed=CANDIDATES)
    return Evaluation(found, later.users, shown), Evaluation(own, later.users, shown)


def test_a_planted_order_is_learned_and_wins() -> None:
    ranked, own = judged(planted=True)
    verdict = compared(ranked, own, own, seed=1)
    assert verdict.wins
    assert verdict.ndcg is not None
    assert verdict.ndcg > 0.8
    assert verdict.events == REQUESTS
    assert "better than the encoder's own order" in verdict.reason


def test_noise_does_not_win() -> None:
    ranked, own = judged(planted=False)
    verdict = compared(ranked, own, own, seed=1)
    assert not verdict.wins
    assert "not better beyond noise" in verdict.reason


def test_what_the_fused_order_does_better_does_not_win() -> None:
    ranked, own = judged(planted=True)
    perfect = replace(own, ranks=np.zeros_like(own.ranks))
    verdict = compared(ranked, own, perfect, seed=1)
    assert not verdict.wins
    assert "worse than the fused order, 1.0000" in verdict.reason


def test_what_no_source_proposed_stays_missed() -> None:
    ranked, _ = judged(planted=True)
    assert (ranked.ranks[::50] == CANDIDATES).all()


def test_the_same_requests_give_the_same_ranker() -> None:
    found = requests(1, planted=True)
    assert learn(found, seed=3).model_to_string() == learn(found, seed=3).model_to_string()


def test_equal_scores_stay_in_their_order() -> None:
    later = requests(2, planted=False)
    found = ranks(np.zeros(len(later.rows)), later, missed=99)
    np.testing.assert_array_equal(found, np.where(later.wanted == MISSED, 99, later.wanted))
