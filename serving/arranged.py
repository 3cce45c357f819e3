"""A list in its final order: new items moved up, spread over categories, some places explored."""

from collections.abc import Collection, Iterable
from itertools import islice

from serving import retrieve
from serving.answers import Arrangement, Asked
from serving.arrange import Candidate, fused, spread
from serving.exploring import explored
from serving.freshness import freshened
from serving.rules import Rules

EXPLORED = 20
"""Exploration draws from so many next candidates, and so many of the newest items."""


def arranged(
    rules: Rules, asked: Asked, candidates: Iterable[Candidate], how: Arrangement
) -> list[Candidate]:
    """The first candidates as they are shown, at most as many as asked for.

    A list asked for by category is not spread, and one that is too short is not explored: it has
    nothing to spare.
    """
    catalogue, capped = rules.pinned.catalogue, not rules.filters.categories

    def category(item_id: str) -> str | None:
        entry = catalogue.entry(item_id) if capped else None
        return entry.categories[0] if entry and entry.categories else None

    def created_us(item_id: str) -> int:
        entry = catalogue.entry(item_id)
        return entry.created_us if entry else 0

    if how.freshness:
        candidates = freshened(
            candidates,
            created_us,
            now_us=rules.now_us,
            weight=how.freshness,
            half_life_hours=how.freshness_hours,
        )
    if how.explore:
        candidates = list(candidates)
    chosen = spread(candidates, asked.limit, cap=how.category_cap, category=category)
    if not how.explore or len(chosen) < asked.limit:
        return chosen
    beyond = _beyond(rules, candidates, {candidate.item_id for candidate in chosen})
    return explored(chosen, beyond, epsilon=how.explore, list_id=asked.list_id)


def _beyond(
    rules: Rules, candidates: Iterable[Candidate], chosen: Collection[str]
) -> list[Candidate]:
    """What exploration may show: the next candidates, and the newest items without an event."""
    further = islice((c for c in candidates if c.item_id not in chosen), EXPLORED)
    new = fused([retrieve.newest(rules, EXPLORED)])
    found = {c.item_id: c for c in (*new, *further) if c.item_id not in chosen}
    return list(found.values())
