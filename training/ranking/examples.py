"""Requests of the past, as the ranker would have met them: candidates, features, what came next."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from nearline.ranking import HOUR_US, Context, matrix, pooled
from nearline.sequence import Vocabulary
from nearline.settings import settings
from training.content import in_order
from training.dataset import Interactions
from training.ranking.candidates import Proposed, Retrieval
from training.ranking.history import items_at, trending_at, users_at

MISSED = -1
"""The place of an item that no source proposed."""


@dataclass(frozen=True)
class Examples:
    """The candidates of many requests, one below the other.

    `rows` is float32 (candidates of all, columns), `sizes` (requests,) the candidates of each,
    `wanted` (requests,) the place of the item that came next among them, MISSED for none. `users`
    are the numbers of the users.
    """

    rows: np.ndarray
    sizes: np.ndarray
    wanted: np.ndarray
    users: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)


def examples(
    retrieval: Retrieval, targets: np.ndarray, vocabulary: Vocabulary, catalogue: pa.Table
) -> Examples:
    """What a request just before each target (a position) would have been made from."""
    data = retrieval.data
    hours = data.times[targets] // HOUR_US * HOUR_US
    lists = list(retrieval.lists(targets, _trends(hours, vocabulary)))
    pools = [pooled(each) for each in lists]
    users = users_at([data.user_ids[user] for user in data.users[targets]], hours)
    items = _items(pools, hours, vocabulary.item_ids)
    known = in_order(catalogue, vocabulary.item_ids)["categories"].to_pylist()
    categories = [names or [] for names in known]
    found = [
        matrix(
            pools[n],
            lists[n],
            vectors=retrieval.matrix[pools[n]],
            newest=retrieval.matrix[retrieval.newest(target)],
            items=items[n],
            categories=[categories[row] for row in pools[n]],
            user=users[n],
            context=_context(data, target),
        )
        for n, target in enumerate(targets)
    ]
    wanted = [
        pool.index(row) if row in pool else MISSED
        for pool, row in zip(pools, (data.items[targets] - 1).tolist(), strict=True)
    ]
    sizes = np.array([len(pool) for pool in pools])
    return Examples(np.concatenate(found), sizes, np.array(wanted), data.users[targets])


def _trends(hours: np.ndarray, vocabulary: Vocabulary) -> list[Proposed]:
    """The trending list at each hour, by rows."""
    once, number = np.unique(hours, return_inverse=True)
    rows = [
        [(vocabulary.item_row[item], score) for item, score in pairs if item in vocabulary.item_row]
        for pairs in trending_at(once)
    ]
    return [rows[n] for n in number]


def _items(
    pools: Sequence[Sequence[int]], hours: np.ndarray, item_ids: Sequence[str]
) -> list[np.ndarray]:
    """The features of each pool's items at its hour: an item is asked for once an hour."""
    rows = np.concatenate([np.asarray(pool, dtype=np.int64) for pool in pools])
    numbers = hours.repeat([len(pool) for pool in pools]) // HOUR_US
    once, place = np.unique(numbers * len(item_ids) + rows, return_inverse=True)
    asked = [item_ids[row] for row in once % len(item_ids)]
    found = items_at(asked, once // len(item_ids) * HOUR_US)[place]
    return np.split(found, np.cumsum([len(pool) for pool in pools])[:-1])


def _context(data: Interactions, target: int) -> Context:
    state = data.states[target]
    return Context(
        now_us=int(data.times[target]),
        last_us=int(data.times[state]),
        events=min(int(state - data.begins[state] + 1), settings().sequence_length),
    )
