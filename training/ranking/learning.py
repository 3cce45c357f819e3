"""The ranker itself: boosted trees that learn which of a request's candidates came next.

LambdaMART (Burges, "From RankNet to LambdaRank to LambdaMART", MSR-TR-2010-82) as LightGBM has it.
"""

from typing import TYPE_CHECKING

import numpy as np

from nearline.ranking import COLUMNS
from training.evaluation import TOP
from training.ranking.examples import MISSED, Examples

if TYPE_CHECKING:
    import lightgbm

TREES = 150
_HOW = {
    "objective": "lambdarank",
    "lambdarank_truncation_level": 2 * TOP,
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.8,
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


def ranks(ranker: "lightgbm.Booster", found: Examples, *, missed: int) -> np.ndarray:
    """The rank (from 0) that the ranker gives the item that came next, `missed` where it cannot.

    Candidates of equal scores stay in their order.
    """
    scores = ranker.predict(found.rows, num_threads=1)
    told = np.full(len(found), missed, dtype=np.int64)
    for n, each in enumerate(np.split(scores, np.cumsum(found.sizes)[:-1])):
        if found.wanted[n] != MISSED:
            own = each[found.wanted[n]]
            told[n] = (each > own).sum() + (each[: found.wanted[n]] == own).sum()
    return told
