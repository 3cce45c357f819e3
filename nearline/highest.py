"""The places of the highest scores."""

import numpy as np


def highest(scores: np.ndarray, limit: int) -> np.ndarray:
    """The places of the `limit` highest scores, int64, the highest first; of equal ones the first.

    `scores` is (items,), of numbers; with fewer than `limit`, all places.
    """
    first = len(scores) - min(limit, len(scores))
    if first == len(scores):
        return np.zeros(0, dtype=np.int64)
    places = np.flatnonzero(scores >= np.partition(scores, first)[first])  # ties for the last too
    order = np.argsort(-scores[places], kind="stable")[:limit]
    found: np.ndarray = places[order]
    return found
