"""What one release can show of one state of the catalogue, row by row of the release."""

from functools import cached_property

import numpy as np

from nearline.sequence import Vocabulary
from serving.catalogue import NEVER_US, Catalogue, Entry
from serving.filters import Filters

MOST_NEW = 1000
"""So many items that the release does not know yet are kept at hand, the newest."""

_MOST_FILTERS = 256


class Shelf:
    """Arrays over the rows of a release, made when first used. Safe to read from many threads.

    A row whose item is not in the catalogue is not shown, unless the catalogue is empty or has only
    what was put item by item. `before` is a shelf whose arrays are taken over where they rest on
    the same release and snapshot.
    """

    def __init__(
        self, vocabulary: Vocabulary, catalogue: Catalogue, *, before: "Shelf | None" = None
    ) -> None:
        self.vocabulary, self.catalogue = vocabulary, catalogue
        same = before if before and before._rests_on(vocabulary, catalogue) else None
        rows = same._rows if same else catalogue.snapshot.rows(vocabulary.item_ids)
        self._rows: np.ndarray = rows
        self._changed = {
            vocabulary.item_row[item_id]: entry
            for item_id, entry in catalogue.changes.items()
            if item_id in vocabulary.item_row
        }
        self._matching: dict[Filters, np.ndarray] = {}

    def shown(self, now_us: int) -> np.ndarray:
        """Which rows may be shown now, bool (items,), for the caller to change."""
        if now_us < self._first_expiry_us:
            return self.on_offer.copy()
        return self.on_offer & (now_us < self._expires_us)

    @cached_property
    def on_offer(self) -> np.ndarray:
        """Which rows are available and not hidden, bool (items,)."""
        snapshot = self.catalogue.snapshot
        found = self._spread(snapshot.on_offer, not snapshot.whole)
        for row, entry in self._changed.items():
            found[row] = entry.on_offer
        return found

    def matching(self, filters: Filters) -> np.ndarray:
        """Which rows are what is wanted, bool (items,)."""
        found = self._matching.get(filters)
        if found is None:
            found = self._spread(self.catalogue.snapshot.matching(filters), False)
            for row, entry in self._changed.items():
                found[row] = filters.match(entry)
            if len(self._matching) >= _MOST_FILTERS:
                self._matching.clear()
            self._matching[filters] = found
        return found

    def over_snapshot(self, values: np.ndarray) -> np.ndarray:
        """Values of the release's rows over those of the snapshot; 0 for items it does not know."""
        found = np.zeros(len(self.catalogue.snapshot), dtype=values.dtype)
        there = self._rows >= 0
        found[self._rows[there]] = values[there]
        return found

    @cached_property
    def new(self) -> list[Entry]:
        """The newest items on offer that the release does not know yet, newest first."""
        snapshot, known = self.catalogue.snapshot, self.vocabulary.item_row
        unknown = snapshot.on_offer.copy()
        unknown[self._rows[self._rows >= 0]] = False
        rows = np.flatnonzero(unknown)
        rows = rows[np.argsort(-snapshot.created_us[rows], kind="stable")][:MOST_NEW]
        changes = self.catalogue.changes
        kept = [e for e in map(snapshot.at, rows.tolist()) if e.item_id not in changes]
        added = [e for e in changes.values() if e.item_id not in known and e.on_offer]
        return sorted([*kept, *added], key=lambda e: (-e.created_us, e.item_id))[:MOST_NEW]

    @cached_property
    def _expires_us(self) -> np.ndarray:
        found = self._spread(self.catalogue.snapshot.expires_us, NEVER_US)
        for row, entry in self._changed.items():
            found[row] = entry.expires_us
        return found

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
