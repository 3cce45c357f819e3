"""What may be shown in one answer. Rules hold when an answer is read, whatever was made before."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from serving.filters import ANY, Filters
from serving.release import Pinned


@dataclass(frozen=True, eq=False)
class Rules:
    """The rules of one request: shown are items on offer, not left out, and what is wanted.

    `left_out` holds what the user touched and what the caller excludes. `now_us` is the time of
    the request in microseconds since 1970.
    """

    pinned: Pinned
    now_us: int
    left_out: frozenset[str] = frozenset()
    filters: Filters = ANY

    @cached_property
    def rows(self) -> np.ndarray:
        """Which rows of the release may be shown, bool (items,)."""
        shelf = self.pinned.shelf
        allowed = shelf.shown(self.now_us)
        if self.filters:
            allowed &= shelf.matching(self.filters)
        item_row = self.pinned.release.vocabulary.item_row
        rows = [row for item in self.left_out if (row := item_row.get(item)) is not None]
        allowed[rows] = False
        return allowed

    def allow(self, item_id: str) -> bool:
        """Whether an item may be shown; the same for one of the release and for a new one."""
        if item_id in self.left_out:
            return False
        catalogue = self.pinned.catalogue
        return catalogue.shown(item_id, self.now_us) and self.wants(item_id)

    def wants(self, item_id: str) -> bool:
        """Whether an item is what the filters want; one that is in no catalogue never is."""
        if not self.filters:
            return True
        entry = self.pinned.catalogue.entry(item_id)
        return entry is not None and self.filters.match(entry)

    def leaving_out(self, item_ids: Iterable[str]) -> "Rules":
        """These rules, with more that is left out, if anything is."""
        more = self.left_out.union(item_ids)
        return replace(self, left_out=more) if len(more) > len(self.left_out) else self

    def without_filters(self) -> "Rules":
        """The rules that hold even where a list is filled up."""
        return replace(self, filters=ANY)
