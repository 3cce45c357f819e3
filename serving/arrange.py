"""One list of what the sources propose: fused, spread over categories, and filled when too short.

A release's ranker may order what is fused (serving/ranking.py).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from nearline.ranking import RANK_OFFSET, WEIGHTS
from serving.reasons import Retriever
from serving.retrieve import Retrieved


class Candidate(NamedTuple):
    """An item that may be shown: its rank score, and the score of each source that proposed it.

    `ranked` is the ranker's score, where it ordered the list, `boost` what freshness made of its
    place, and `propensity` the chance that exploration gave it the place.
    """

    item_id: str
    score: float
    scores: Mapping[Retriever, float] = MappingProxyType({})
    matches: bool = True
    ranked: float | None = None
    boost: float = 1.0
    propensity: float = 1.0

    @property
    def source(self) -> Retriever:
        """The source that counts most among those that proposed it."""
        return max(self.scores, key=lambda source: WEIGHTS[source])


def fused(retrieved: Sequence[Retrieved]) -> Iterator[Candidate]:
    """The candidates of all sources by reciprocal rank fusion: sum of weight / (k + rank).

    A single source keeps its order and its scores. Each is made when it is asked for: few are.
    """
    given = [found for found in retrieved if found.items]
    if len(given) == 1:
        [alone] = given
        yield from (Candidate(item, score, {alone.source: score}) for item, score in alone.items)
        return
    ranks: defaultdict[str, float] = defaultdict(float)
    scores: dict[str, dict[Retriever, float]] = {}
    for found in given:
        for rank, (item_id, score) in enumerate(found.items, start=1):
            ranks[item_id] += WEIGHTS[found.source] / (RANK_OFFSET + rank)
            scores.setdefault(item_id, {})[found.source] = score
    order = sorted(ranks, key=lambda item_id: -ranks[item_id])
    yield from (Candidate(item_id, ranks[item_id], scores[item_id]) for item_id in order)


def spread(
    ranked: Iterable[Candidate],
    limit: int,
    *,
    cap: float,
    category: Callable[[str], str | None],
) -> list[Candidate]:
    """The first `limit` candidates, of which at most the share `cap` is of one category.

    What is beyond the cap waits, and comes back at the end when there is too little else; so a
    list is never shorter for it. An item without a category is never beyond.
    """
    most, counts = math.ceil(cap * limit), Counter[str]()
    chosen: list[Candidate] = []
    waiting: list[Candidate] = []
    for candidate in ranked:
        if len(chosen) == limit:
            break
        name = category(candidate.item_id)
        if name is not None and counts[name] >= most:
            waiting.append(candidate)
            continue
        chosen.append(candidate)
        if name is not None:
            counts[name] += 1
    return [*chosen, *waiting[: limit - len(chosen)]]


def filled(
    chosen: Sequence[Candidate],
    sources: Iterable[Callable[[int], Retrieved]],
    limit: int,
    *,
    matches: bool = True,
) -> list[Candidate]:
    """`chosen`, and what further sources propose, one after the other, until there are `limit`.

    `matches` says whether what they propose is what the filters want.
    """
    found = {candidate.item_id: candidate for candidate in chosen}
    for source in sources:
        if len(found) >= limit:
            break
        for candidate in fused([source(limit)]):
            if len(found) < limit:
                found.setdefault(candidate.item_id, candidate._replace(matches=matches))
    return list(found.values())
