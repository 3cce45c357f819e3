"""Freshness: newer items stand higher, by a boost that fades with their age."""

from collections.abc import Callable, Iterable

from nearline.ranking import RANK_OFFSET
from serving.arrange import Candidate

_HOUR_US = 3_600_000_000


def freshened(
    ranked: Iterable[Candidate],
    created_us: Callable[[str], int],
    *,
    now_us: int,
    weight: float,
    half_life_hours: float,
) -> list[Candidate]:
    """The candidates in the order of place worth times boost.

    A place is worth 1 / (RANK_OFFSET + place), as where lists are fused, whatever the scores mean;
    the boost of an item is 1 + weight * 2^(-age / half-life). One whose creation is not known, as
    microseconds since 1970, gets none.
    """

    def boost(candidate: Candidate) -> float:
        created = created_us(candidate.item_id)
        hours = max(now_us - created, 0) / _HOUR_US
        return 1 + weight * 2.0 ** (-hours / half_life_hours) if created else 1.0

    boosted = [candidate._replace(boost=boost(candidate)) for candidate in ranked]
    worth = [each.boost / (RANK_OFFSET + place) for place, each in enumerate(boosted, start=1)]
    return [boosted[at] for at in sorted(range(len(boosted)), key=lambda at: -worth[at])]
