"""What a model must beat: the popular, the neighbours of what was touched, the alike.

Each is made from what lies before a moment, as the model is, and sees the user's own history live.
"""

from dataclasses import dataclass

import numpy as np

from nearline.sequence import PAD
from training.dataset import Interactions, touched
from training.evaluation import Scorer

DAY_US = 86_400 * 1_000_000

RECENT_DAYS = (1, 7, 30)
HALF_LIFE_DAYS = 7.0

_NEWEST = 20
"""Events of a user that the neighbours and the alike are looked up for."""

_REACH = 20
_MOST_EVENTS = 2_000_000
_NEIGHBOURS = 100
_SMOOTH = 10.0
_CONTENT_DIM = 256


def all_baselines(
    data: Interactions, content: np.ndarray, *, before: int, seed: int
) -> dict[str, Scorer]:
    """Every baseline by name, made from the events before a moment; `content` is (items, width)."""
    items = len(content)
    spans = {"popular": None} | {f"popular_{days}d": days for days in RECENT_DAYS}
    popular = {
        name: popularity_scorer(popularity(data, items=items, before=before, days=days))
        for name, days in spans.items()
    }
    neighbours = item_neighbours(data, items=items, before=before)
    return popular | {
        "item_to_item": neighbour_scorer(data, neighbours),
        "content": content_scorer(data, content_vectors(content, seed=seed)),
    }


def popularity(
    data: Interactions, *, items: int, before: int, days: int | None = None
) -> np.ndarray:
    """Events of each item before a moment, of all time or of the last `days`; float32 (items,)."""
    counted = data.times < before
    if days is not None:
        counted &= data.times >= before - days * DAY_US
    return np.bincount(data.items[counted] - 1, minlength=items).astype(np.float32)


def decayed_popularity(
    data: Interactions, *, items: int, now: int, since: int | None = None
) -> np.ndarray:
    """Events of each item from `since` on and before `now`, each worth half after HALF_LIFE_DAYS.

    float32 (items,).
    """
    counted = data.times < now
    if since is not None:
        counted &= data.times >= since
    worth = decay(now - data.times[counted])
    return np.bincount(data.items[counted] - 1, worth, minlength=items).astype(np.float32)


def decay(age_us: np.ndarray) -> np.ndarray:
    """What is left of an event's worth after some microseconds."""
    left: np.ndarray = 0.5 ** (np.asarray(age_us) / (HALF_LIFE_DAYS * DAY_US))
    return left


def popularity_scorer(counts: np.ndarray) -> Scorer:
    """The same order for everyone."""
    return lambda targets: np.repeat(counts[None, :], len(targets), axis=0)


@dataclass(frozen=True)
class Neighbours:
    """For each item those most often near it: rows (-1 for none) and likeness, (items, K)."""

    rows: np.ndarray
    likeness: np.ndarray


def item_neighbours(data: Interactions, *, items: int, before: int) -> Neighbours:
    """Items that the same users touched within a few events of one another, before a moment.

    Likeness is c_ij / (sqrt(n_i n_j) + smoothing), from the newest two million events at most.
    """
    past = np.flatnonzero(data.times < before)
    if len(past) > _MOST_EVENTS:
        past = past[data.times[past] >= np.sort(data.times[past])[-_MOST_EVENTS]]
    codes, counts = np.unique(_pairs(data, past, items), return_counts=True)
    left, right = codes // items, codes % items
    size = np.bincount(data.items[past] - 1, minlength=items)
    likeness = counts / (np.sqrt(size[left] * size[right]) + _SMOOTH)
    order = np.lexsort((right, -likeness, left))
    left, right, likeness = left[order], right[order], likeness[order]
    place = np.arange(len(left)) - np.searchsorted(left, left)
    kept = place < _NEIGHBOURS
    found = Neighbours(
        np.full((items, _NEIGHBOURS), -1, dtype=np.int64),
        np.zeros((items, _NEIGHBOURS), dtype=np.float32),
    )
    found.rows[left[kept], place[kept]] = right[kept]
    found.likeness[left[kept], place[kept]] = likeness[kept]
    return found


def _pairs(data: Interactions, past: np.ndarray, items: int) -> np.ndarray:
    """Codes `left * items + right` of items near one another, both ways."""
    users, rows = data.users[past], data.items[past] - 1
    found = []
    for apart in range(1, _REACH + 1):
        together = (users[apart:] == users[:-apart]) & (rows[apart:] != rows[:-apart])
        one, other = rows[:-apart][together], rows[apart:][together]
        found += [one * items + other, other * items + one]
    return np.concatenate(found)


def neighbour_scorer(data: Interactions, neighbours: Neighbours) -> Scorer:
    """Item-to-item: the summed likeness to the user's newest items."""
    items = len(neighbours.rows)

    def score(targets: np.ndarray) -> np.ndarray:
        numbers, rows = touched(data, data.states[targets], newest=_NEWEST)
        near, likeness = neighbours.rows[rows], neighbours.likeness[rows]
        cells = (numbers[:, None] * items + near)[near >= 0]
        summed = np.bincount(cells, likeness[near >= 0], minlength=len(targets) * items)
        return summed.reshape(len(targets), items).astype(np.float32)

    return score


def content_vectors(content: np.ndarray, *, seed: int) -> np.ndarray:
    """Hashed content (items, width) as vectors of length 1, float32: rare features count more.

    Features meet in a random projection, which keeps cosines about as they are.
    """
    features, number = np.unique(content, return_inverse=True)
    number = number.reshape(content.shape)
    there = content != PAD
    rarity = np.log(len(content) / np.bincount(number[there], minlength=len(features)).clip(1))
    rng = np.random.default_rng(seed)
    axes = rng.standard_normal((len(features), _CONTENT_DIM)).astype(np.float32)
    vectors = np.zeros((len(content), _CONTENT_DIM), dtype=np.float32)
    for column in range(content.shape[1]):
        weight = rarity[number[:, column]] * there[:, column]
        vectors += axes[number[:, column]] * weight[:, None].astype(np.float32)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(length, 1e-9)


def content_scorer(data: Interactions, vectors: np.ndarray) -> Scorer:
    """Content-based: the mean cosine to the user's newest items."""

    def score(targets: np.ndarray) -> np.ndarray:
        states = data.states[targets]
        numbers, rows = touched(data, states, newest=_NEWEST)
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        profiles = np.add.reduceat(vectors[rows], starts) if len(rows) else vectors[:0]
        scores: np.ndarray = profiles @ vectors.T
        return scores

    return score
