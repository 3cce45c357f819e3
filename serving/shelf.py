"""What one release can show of one state of the catalogue, row by row of the release."""

from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

import numpy as np

from nearline.sequence import Vocabulary
from serving.catalogue import NEVER_US, Catalogue, Entry, Mark
from serving.columns import Columns
from serving.filters import Filters

MOST_NEW = 1000
"""So many items that the release does not know yet are kept at hand, the newest."""


class _New(NamedTuple):
    """The items that were `new` in a state of the catalogue."""

    mark: Mark
    entries: list[Entry]


class Shelf:
    """Arrays over the rows of a release, made when first used. Safe to read from many threads.

    A row whose item is not in the catalogue is not shown, unless the catalogue is empty or has only
    what was put item by item. `before` is a shelf whose arrays are taken over, and brought up to
    this state, where they rest on the same release and snapshot.
    """

    def __init__(
        self, vocabulary: Vocabulary, catalogue: Catalogue, *, before: "Shelf | None" = None
    ) -> None:
        self.vocabulary, self.catalogue = vocabulary, catalogue
        same = before if before and before._rests_on(vocabulary, catalogue) else None
        rows = same._rows if same else catalogue.snapshot.rows(vocabulary.item_ids)
        self._rows: np.ndarray = rows
        self._columns: Columns = same._columns if same else Columns(vocabulary.item_row)
        self._new_before: _New | None = same._last_new if same else None

    def shown(self, now_us: int) -> np.ndarray:
        """Which rows may be shown now, bool (items,), for the caller to change."""
        if now_us < self._first_expiry_us:
            return self.on_offer.copy()
        return self.on_offer & (now_us < self._expires_us)

    @cached_property
    def on_offer(self) -> np.ndarray:
        """Which rows are available and not hidden, bool (items,)."""
        snapshot = self.catalogue.snapshot
        return self._columns.at(
            self.catalogue,
            "on_offer",
            lambda: self._spread(snapshot.on_offer, not snapshot.whole),
            lambda entry: entry.on_offer,
        )

    def matching(self, filters: Filters) -> np.ndarray:
        """Which rows are what is wanted, bool (items,)."""
        snapshot = self.catalogue.snapshot
        return self._columns.at(
            self.catalogue,
            filters,
            lambda: self._spread(snapshot.matching(filters), False),
            filters.match,
        )

    def over_snapshot(self, values: np.ndarray) -> np.ndarray:
        """Values of the release's rows over those of the snapshot; 0 for items it does not know."""
        found = np.zeros(len(self.catalogue.snapshot), dtype=values.dtype)
        there = self._rows >= 0
        found[self._rows[there]] = values[there]
        return found

    @cached_property
    def new(self) -> list[Entry]:
        """The newest items on offer that the release does not know yet, newest first."""
        found = self._brought_up(self._new_before) if self._new_before else None
        if found is not None:
            return found
        snapshot, changes = self.catalogue.snapshot, self.catalogue.changes
        unknown = snapshot.on_offer.copy()
        unknown[self._rows[self._rows >= 0]] = False
        rows = np.flatnonzero(unknown)
        rows = rows[np.argsort(-snapshot.created_us[rows], kind="stable")][:MOST_NEW]
        kept = [e for e in map(snapshot.at, rows.tolist()) if e.item_id not in changes]
        return sorted([*kept, *self._unknown(changes.values())], key=_age)[:MOST_NEW]

    def _brought_up(self, before: _New) -> list[Entry] | None:
        """`new` from that of an earlier state; None where items that were not in it may be now."""
        put = self.catalogue.since(before.mark)
        if put is None:
            return None
        ids = {entry.item_id for entry in put}
        stay = [entry for entry in before.entries if entry.item_id not in ids]
        found = sorted([*stay, *self._unknown(put)], key=_age)[:MOST_NEW]
        if len(before.entries) < MOST_NEW:
            return found
        moved_up = len(found) < MOST_NEW or _age(found[-1]) > _age(before.entries[-1])
        return None if moved_up else found

    def _unknown(self, entries: Iterable[Entry]) -> list[Entry]:
        known = self.vocabulary.item_row
        return [entry for entry in entries if entry.item_id not in known and entry.on_offer]

    @property
    def _last_new(self) -> _New | None:
        """`new` of this state, or of the last one in which it was asked for."""
        own = vars(self).get("new")
        return self._new_before if own is None else _New(self.catalogue.mark, own)

    @cached_property
    def _expires_us(self) -> np.ndarray:
        snapshot = self.catalogue.snapshot
        return self._columns.at(
            self.catalogue,
            "expires_us",
            lambda: self._spread(snapshot.expires_us, NEVER_US),
            lambda entry: entry.expires_us,
        )

    @cached_property
    def _first_expiry_us(self) -> int:
        return int(self._expires_us.min(initial=NEVER_US))

    def _spread(self, values: np.ndarray, missing: object) -> np.ndarray:
        """A column of the snapshot over the rows of the release; `missing` where it has no item."""
        found = np.full(len(self._rows), missing, dtype=values.dtype)
        there = self._rows >= 0
        found[there] = values[self._rows[there]]
        return found

    def _rests_on(self, vocabulary: Vocabulary, catalogue: Catalogue) -> bool:
        return self.vocabulary is vocabulary and self.catalogue.snapshot is catalogue.snapshot


def _age(entry: Entry) -> tuple[int, str]:
    """The order of new items: the newest first."""
    return -entry.created_us, entry.item_id
