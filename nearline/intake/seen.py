"""Which event ids came in within the last hours, in twelve bytes each."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

import numpy as np

from nearline.windows import hour_number


class SeenIds:
    """Event ids with the hour in which they were accepted, for `late_hours`.

    Kept of an id is its hash, 64 bits with a key of this process: among five million ids a new one
    is taken for one of them once in 10^12. Those of the newest hour are in a set, all older ones in
    sorted arrays. For one thread at a time.
    """

    def __init__(self, late_hours: int) -> None:
        self._late_hours = late_hours
        self._hour = 0
        self._newest: set[int] = set()
        self._ids = np.empty(0, np.int64)
        self._hours = np.empty(0, np.int32)

    def known(self, event_ids: Sequence[str], at: datetime) -> set[str]:
        """Those of the ids that were added up to `late_hours` before the hour of that time."""
        oldest = hour_number(at) - self._late_hours
        newest = self._newest if self._hour >= oldest else frozenset()
        found = {event_id for event_id in event_ids if hash(event_id) in newest}
        keys = np.fromiter(map(hash, event_ids), np.int64, len(event_ids))
        firsts, ends = self._ids.searchsorted(keys), self._ids.searchsorted(keys, "right")
        for number in np.flatnonzero(firsts < ends).tolist():
            if (self._hours[firsts[number] : ends[number]] >= oldest).any():
                found.add(event_ids[number])
        return found

    def add(self, event_ids: Iterable[str], at: datetime) -> None:
        """The ids were accepted in the hour of that time, and are known from now on."""
        if hour_number(at) != self._hour:
            self._file_away(hour_number(at))
        self._newest.update(map(hash, event_ids))

    def forget(self, event_ids: Collection[str]) -> None:
        """Take these ids as never seen."""
        keys = [hash(event_id) for event_id in event_ids]
        self._newest.difference_update(keys)
        self._keep(~np.isin(self._ids, keys))

    def _file_away(self, hour: int) -> None:
        """Begin an hour: what was the newest goes to the arrays, and what is too old goes."""
        self._keep(self._hours >= hour - self._late_hours)
        keys = np.sort(np.fromiter(self._newest, np.int64, len(self._newest)))
        places = self._ids.searchsorted(keys)
        self._ids = np.insert(self._ids, places, keys)
        self._hours = np.insert(self._hours, places, self._hour)
        self._hour, self._newest = hour, set()

    def _keep(self, kept: np.ndarray) -> None:
        self._ids, self._hours = self._ids[kept], self._hours[kept]
