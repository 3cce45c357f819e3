"""Which items of a release are like those that users touch, by what the catalogue says of them."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock

import numpy as np

from nearline.alike import Alike
from nearline.lenders import Loan
from nearline.words import numbers
from serving.catalogue import Entry

MOST_KEPT = 20_000
"""Items of which is kept what is like them, half a kilobyte each."""


class KeptAlike:
    """What `Alike` finds, kept for the items asked for most lately, as long as they say the same.

    `item_row` says where items stand in the release, `buckets` is how many words it tells apart.
    Safe to use from many threads: two that ask for one item at once may both look it up.
    """

    def __init__(self, alike: Alike, item_row: Mapping[str, int], *, buckets: int) -> None:
        self._alike = alike
        self._item_row = item_row
        self._buckets = buckets
        self._kept: OrderedDict[int, Loan] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def closest(self, entries: Sequence[Entry]) -> list[Loan]:
        """The release's items most like each of these, and the share of each."""
        told = {hash((e.item_id, e.title, e.text, e.categories)): e for e in entries}
        found = self._of(told)
        missing = {key: entry for key, entry in told.items() if key not in found}
        if missing:
            made = dict(zip(missing, self._made(list(missing.values())), strict=True))
            self._keep(made)
            found |= made
        return [found[key] for key in told]

    def _of(self, keys: Mapping[int, Entry]) -> dict[int, Loan]:
        with self._lock:
            there = [key for key in keys if key in self._kept]
            for key in there:
                self._kept.move_to_end(key)
            return {key: self._kept[key] for key in there}

    def _made(self, entries: Sequence[Entry]) -> list[Loan]:
        words = [numbers(e.title, e.text, e.categories, buckets=self._buckets) for e in entries]
        return self._alike.closest(
            words, np.array([self._item_row.get(e.item_id, -1) for e in entries])
        )

    def _keep(self, made: Mapping[int, Loan]) -> None:
        with self._lock:
            self._kept |= made
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
