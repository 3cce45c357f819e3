"""The ranker itself: boosted trees that learn which of a request's candidates came next.

They go down the listwise loss XE-NDCG (Bruch, "An Alternative Cross Entropy Loss for
Learning-to-Rank", WWW 2021) as LightGBM has it. They are few and small, and may not turn what
speaks for a candidate against it: the newest events are of few users, whose habits larger trees
learn by heart.
"""

from typing import TYPE_CHECKING

import numpy as np

from nearline.ranking import COLUMNS, SOURCES, named
from training.ranking.examples import MISSED, Examples

if TYPE_CHECKING:
    import lightgbm

RISING = {
    *(f"{source}_share" for source in SOURCES),
    *("encoder_score", "fused", "near_newest", "near_mean", "near_best"),
    *("affinity_sum", "affinity_best"),
    *(
        named(f"item_popularity:{name}")
        for name in ("events_7d", "events_30d", "decayed_weight", "mean_value_30d")
    ),
}
FALLING = {f"{source}_place" for source in SOURCES}
"""Columns that may only speak for a candidate, or only against it, the larger they are."""

TREES = 50
_HOW = {
    "objective": "rank_xendcg",
    "learning_rate": 0.05,
    "num_leaves": 4,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.8,
    "monotone_constraints": [(name in RISING) - (name in FALLING) for name in COLUMNS],
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}


def learn(found: Examples, *, seed: int) -> "lightgbm.Booster":
    """A ranker of these requests; those whose next item no source proposed teach nothing."""
    import lightgbm

    taught = found.wanted != MISSED
    sizes, wanted = found.sizes[taught], found.wanted[taught]
    rows = found.rows[np.repeat(taught, found.sizes)]
    labels = np.zeros(len(rows), dtype=np.int8)
    labels[np.cumsum(sizes) - sizes + wanted] = 1
    table = lightgbm.Dataset(rows, labels, group=sizes, feature_name=list(COLUMNS))
    return lightgbm.train(_HOW | {"seed": seed}, table, num_boost_round=TREES)


def scored(ranker: "lightgbm.Booster", found: Examples) -> np.ndarray:
    """The ranker's score of every candidate: the higher, the sooner."""
    return np.asarray(ranker.predict(found.rows, num_threads=1))


def fused(found: Examples) -> np.ndarray:
    """The score of every candidate where the sources' lists are fused, as without a ranker."""
    return found.rows[:, COLUMNS.index("fused")]


def ranks(scores: np.ndarray, found: Examples, *, missed: int) -> np.ndarray:
    """The rank (from 0) of the item that came next by these scores, `missed` where it cannot be.

    Candidates of equal scores stay in their order.
    """
    told = np.full(len(found), missed, dtype=np.int64)
    for n, each in enumerate(np.split(scores, np.cumsum(found.sizes)[:-1])):
        if found.wanted[n] != MISSED:
            own = each[found.wanted[n]]
            told[n] = (each > own).sum() + (each[: found.wanted[n]] == own).sum()
    return told
