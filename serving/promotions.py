"""The promotions that run now, and their places in a list: nearline/promotions.py."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from nearline.promotions import Promotion, parse_promotions
from nearline.settings import settings
from serving.answers import Answer, ScoredItem, Why
from serving.last_good import Watched
from serving.metrics import Metrics
from serving.rules import Rules


class Slot(NamedTuple):
    """A promoted item's place in a list, counted from 1."""

    place: int
    item_id: str


class Promotions:
    """Follows the file of promotions; see Watched for a wrong one."""

    def __init__(self, path: Path, metrics: Metrics) -> None:
        """Without promotions until the first `refresh`."""
        self._file = Watched("promotions", path, parse_promotions, metrics)

    @classmethod
    def open(cls, metrics: Metrics) -> "Promotions":
        """The promotions of the file that the settings name."""
        return cls(settings().promotions, metrics)

    def running(self, now: datetime) -> tuple[Promotion, ...]:
        """Those whose time it is, by their places."""
        return tuple(each for each in self._file.told if each.since <= now < each.until)

    def refresh(self) -> None:
        """Take over the file if it changed. One thread calls this."""
        self._file.refresh()


def slots(
    running: Iterable[Promotion],
    rules: Rules,
    *,
    surface: str | None,
    categories: Collection[str],
    limit: int,
    most: int,
) -> list[Slot]:
    """The places of a list of `limit` that go to promotions: at most `most`, and half of the list.

    Only what the rules allow and somebody knows. Of two for one place, the second takes the next.
    """
    taken: list[Slot] = []
    for each in running:
        place = max(each.place, taken[-1].place + 1 if taken else 1)
        if len(taken) == min(most, limit // 2) or place > limit:
            break
        there = each.item_id not in (slot.item_id for slot in taken)
        if there and each.fits(surface, categories) and _may_be_shown(each.item_id, rules):
            taken.append(Slot(place, each.item_id))
    return taken


def _may_be_shown(item_id: str, rules: Rules) -> bool:
    pinned = rules.pinned
    known = item_id in pinned.catalogue or item_id in pinned.release.vocabulary.item_row
    return known and rules.allow(item_id)


def placed(answer: Answer, taken: Sequence[Slot], rules: Rules, *, explain: bool) -> Answer:
    """The answer with promoted items at their places, or where it ends or begins to be filled up.

    So the last items of a list that was filled up are those that fill it.
    """
    if not taken:
        return answer
    items = list(answer.items)
    end = len(items) - (answer.filled.items if answer.filled else 0)
    for more, (place, item_id) in enumerate(taken):
        title = rules.pinned.catalogue.title(item_id)
        why = Why({}) if explain else None
        at = min(place - 1, end + more)
        items.insert(at, ScoredItem(item_id, title, 0.0, "promotion", why=why))
    return replace(answer, items=items)
