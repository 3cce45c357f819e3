"""Candidates: each source proposes items that the rules allow, best first, with its own scores.

Scores of different sources do not compare; serving/arrange.py makes one list of them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nearline.ranking import TIED
from nearline.sequence import History
from serving.features import Neighbours, Trending
from serving.filters import Filters
from serving.reasons import Retriever
from serving.rules import Rules

TASTE = 0.3
"""How much a user's taste counts in a search, where the best hit by words counts 1."""

_RECENT = 20
"""So many newest events tell which categories a user is in the mood for."""


@dataclass(frozen=True)
class Retrieved:
    """What one source proposes: pairs of (item, score), best first."""

    source: Retriever
    items: Sequence[tuple[str, float]]


def nearest(
    rules: Rules, limit: int, *, vector: np.ndarray, source: Retriever = "encoder"
) -> Retrieved:
    """The items nearest to a vector of the release, float32 (dim,), new ones by their words."""
    rows, scores = rules.pinned.release.top(vector, limit, rules.rows)
    known = _by_row(rules, rows, scores)
    new = _allowed(rules, rules.pinned.newcomers.nearest(vector), limit)
    every = sorted([*known, *new], key=lambda pair: -pair[1])[:limit] if new else known
    return Retrieved(source, every)


def popular(rules: Rules, limit: int) -> Retrieved:
    """What the release saw most."""
    rows, scores = rules.pinned.release.popular(limit, rules.rows)
    return Retrieved("popular", _by_row(rules, rows, scores))


def trending(rules: Rules, limit: int, *, trends: Trending | None) -> Retrieved:
    """What the whole site touches now."""
    pairs = zip(trends.item_ids, trends.scores, strict=True) if trends else ()
    return Retrieved("trending", _allowed(rules, pairs, limit))


def together(rules: Rules, limit: int, *, neighbours: Mapping[str, Neighbours]) -> Retrieved:
    """What the same users touch as the given items; scores add up over these."""
    scores: Counter[str] = Counter()
    for found in neighbours.values():
        scores.update(dict(zip(found.item_ids, found.scores, strict=True)))
    return Retrieved("cooccurrence", _allowed(rules, _ranked(scores), limit))


def new_to_taste(rules: Rules, limit: int, *, history: History) -> Retrieved:
    """Items that the release does not know yet, of the categories that the user touched last.

    The score is the share of the newest touches that an item's categories cover, as a mean over
    its categories: an item that lists every category fits nobody.
    """
    new = rules.pinned.shelf.new
    taste = _taste(rules, history) if new else {}
    scores = {
        entry.item_id: sum(taste.get(name, 0.0) for name in entry.categories)
        / len(entry.categories)
        for entry in new
        if not taste.keys().isdisjoint(entry.categories)
    }
    return Retrieved("content", _allowed(rules, _ranked(scores), limit))


def newest(rules: Rules, limit: int) -> Retrieved:
    """Items that the release does not know yet, newest first, whatever they are."""
    pairs = ((entry.item_id, 0.0) for entry in rules.pinned.shelf.new)
    return Retrieved("content", _allowed(rules, pairs, limit))


def found(
    rules: Rules,
    limit: int,
    *,
    find: Callable[[Filters], Sequence[tuple[str, float]]],
    vector: np.ndarray | None = None,
) -> Retrieved:
    """Items that `find` has by words, those to the user's taste first among equals.

    The score is the share of the best hit's, and TASTE times the cosine with the user's vector.
    """
    allowed = _allowed(rules, find(rules.filters), limit)
    best = max((score for _, score in allowed), default=1.0) or 1.0

    def taste(item_id: str) -> float:
        item = rules.pinned.vector(item_id)
        return 0.0 if item is None or vector is None else TASTE * float(item @ vector)

    scores = {item_id: score / best + taste(item_id) for item_id, score in allowed}
    return Retrieved("words", _ranked(scores))


def alike(rules: Rules, limit: int, *, history: History) -> Retrieved:
    """What is like the items touched last by what is said of it; likeness adds up over these."""
    release = rules.pinned.release
    row_of, ids = release.vocabulary.item_row, release.vocabulary.item_ids
    known = [row_of[item_id] for item_id in history.item_ids if item_id in row_of]
    newest = list(dict.fromkeys(known[-TIED:]))
    if release.alike is None or not newest:
        return Retrieved("alike", ())
    pairs = release.alike.proposed(np.array(newest), rules.rows)[:limit]
    return Retrieved("alike", [(ids[row], score) for row, score in pairs])


def by_categories(rules: Rules, limit: int, *, item_id: str) -> Retrieved:
    """Items that share categories with an item: closest first, then what the release saw most."""
    release, shelf = rules.pinned.release, rules.pinned.shelf
    shares = rules.pinned.catalogue.alike(
        item_id, filters=rules.filters, then=shelf.over_snapshot(release.popularity)
    )

    def place(pair: tuple[str, float]) -> tuple[float, float, str]:
        row = release.vocabulary.item_row.get(pair[0])
        return -pair[1], -float(release.popularity[row]) if row is not None else 0.0, pair[0]

    return Retrieved("content", _allowed(rules, sorted(shares.items(), key=place), limit))


def _taste(rules: Rules, history: History) -> dict[str, float]:
    """Categories of the newest items touched, each with its share of these touches."""
    entries = [rules.pinned.catalogue.entry(item) for item in history.item_ids[-_RECENT:]]
    counts = Counter(name for entry in entries if entry for name in set(entry.categories))
    return {name: count / len(entries) for name, count in counts.items()}


def _ranked(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))


def _allowed(
    rules: Rules, pairs: Iterable[tuple[str, float]], limit: int
) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for item_id, score in pairs:
        if len(found) == limit:
            break
        if rules.allow(item_id):
            found.append((item_id, score))
    return found


def _by_row(rules: Rules, rows: np.ndarray, scores: np.ndarray) -> list[tuple[str, float]]:
    ids = rules.pinned.release.vocabulary.item_ids
    return [(ids[row], score) for row, score in zip(rows.tolist(), scores.tolist(), strict=True)]
