"""Arrays over rows that hold of one state of the catalogue, brought up to the next by what was put.

Thousands of items may be put between two closings: to walk all of them for each that follows would
make every list wait.
"""

from collections.abc import Callable, Collection, Hashable
from typing import NamedTuple

import numpy as np

from serving.catalogue import Catalogue, Entry, Mark

MOST_COLUMNS = 256


class _Column(NamedTuple):
    mark: Mark
    values: np.ndarray


class Columns:
    """Arrays by name, of the rows of one release and one snapshot. Safe to use from many threads.

    `rows` are those of the items that the release knows.
    """

    def __init__(self, rows: dict[str, int]) -> None:
        self._rows = rows
        self._columns: dict[Hashable, _Column] = {}

    def at(
        self,
        catalogue: Catalogue,
        name: Hashable,
        make: Callable[[], np.ndarray],
        value: Callable[[Entry], object],
    ) -> np.ndarray:
        """The column as it is in a state: `make` tells it of the snapshot, `value` of an item."""
        known = self._columns.get(name)
        put: Collection[Entry] | None = catalogue.since(known.mark if known else None)
        if known is None or put is None:
            found, put = make(), catalogue.changes.values()
        else:
            found = known.values.copy() if put else known.values
        for entry in put:
            row = self._rows.get(entry.item_id)
            if row is not None:
                found[row] = value(entry)
        if len(self._columns) >= MOST_COLUMNS:
            self._columns.clear()
        self._columns[name] = _Column(catalogue.mark, found)
        return found
