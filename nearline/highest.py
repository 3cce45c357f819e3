"""The places of the highest scores."""

import numpy as np


def highest(scores: np.ndarray, limit: int) -> np.ndarray:
    """The places of the `limit` highest scores, int64, the highest first; of equal ones the first.

    `scores` is (items,), of numbers; with fewer than `limit`, all places.
    """
    most = min(limit, len(scores))
    if not most:
        return np.zeros(0, dtype=np.int64)
    # Dealt out to `most` hands, each hand has a score no lower than `floor`, the lowest of their
    # best: so what is wanted lies there. To look for the last of so few takes far less time.
    hands = scores[: len(scores) // most * most].reshape(-1, most)
    floor = hands.max(axis=0).min()
    places = np.flatnonzero(scores >= floor)
    lowest = np.partition(scores[places], -most)[-most]
    places = places[scores[places] >= lowest]  # ties for the last too
    order = np.argsort(-scores[places], kind="stable")[:limit]
    found: np.ndarray = places[order]
    return found
