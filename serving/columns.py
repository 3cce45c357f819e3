"""Arrays over rows that hold of one state of the catalogue, brought up to the next by what was put.

Thousands of items may be put between two closings: to walk all of them for each that follows would
make every list wait.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from threading import Lock
from typing import NamedTuple

import numpy as np

from serving.catalogue import Catalogue, Entry, Mark

MOST_COLUMNS = 256
MOST_BYTES = 64 << 20
"""Of one release and snapshot so many columns are kept, of so many bytes together; those used
longest ago go first."""


class _Column(NamedTuple):
    mark: Mark
    values: np.ndarray


class Columns:
    """Arrays by name, of the rows of one release and one snapshot. Safe to use from many threads.

    `rows` are those of the items that the release knows.
    """

    def __init__(self, rows: dict[str, int]) -> None:
        self._rows = rows
        self._columns: OrderedDict[Hashable, _Column] = OrderedDict()  # used longest ago first
        self._bytes = 0
        self._lock = Lock()

    def at(
        self,
        catalogue: Catalogue,
        name: Hashable,
        make: Callable[[], np.ndarray],
        value: Callable[[Entry], object],
    ) -> np.ndarray:
        """The column as it is in a state: `make` tells it of the snapshot, `value` of an item."""
        with self._lock:
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
        self._keep(name, _Column(catalogue.mark, found))
        return found

    def _keep(self, name: Hashable, column: _Column) -> None:
        with self._lock:
            before = self._columns.pop(name, None)
            self._columns[name] = column
            self._bytes += column.values.nbytes - (before.values.nbytes if before else 0)
            while len(self._columns) > MOST_COLUMNS or self._bytes > MOST_BYTES:
                _, gone = self._columns.popitem(last=False)
                self._bytes -= gone.values.nbytes
