"""What other workers take in: events and items of their journals, followed as they come.

The journals are the one truth of live state. A worker reads what any worker wrote, its own part
too, before it answers; so what was accepted anywhere changes the next answer everywhere.
"""

from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any

from nearline.intake import Follower, item_of, merged_until
from nearline.intake.files import barred, journal_hours
from nearline.lake import CATALOGUE, Lake
from nearline.schema import ITEM_ID
from nearline.windows import HOUR, hour_floor
from serving.catalogue import Catalogue, Entry, read_snapshot

_SEQUENCES = "online/user_sequence"


class CatalogueFollower:
    """The lake's catalogue and the items that were put since; `current` is the state of it now.

    The snapshot is read again when its file has changed. Items that it has taken up by then are
    no longer changes to it.
    """

    def __init__(self, lake: Lake, items: Follower[dict[str, Any]]) -> None:
        self._lake, self._items = lake, items
        self._path = lake.snapshot_path(CATALOGUE)
        self._seen: object = None
        self._until = merged_until(lake)
        self._arrived: dict[str, tuple[datetime, Entry]] = {}
        self._changing = Lock()
        self.current = Catalogue()

    def refresh(self) -> None:
        """Read the snapshot if it changed. One thread calls this.

        Raises NearlineError when the file cannot be read.
        """
        self._lake.fs.invalidate_cache(self._path)
        seen = self._lake.fs.ukey(self._path) if self._lake.fs.exists(self._path) else None
        if seen == self._seen:
            return
        # In this order: should the file be replaced in between, an item counts twice, not never.
        until = merged_until(self._lake)
        snapshot = read_snapshot(self._lake)
        with self._changing:
            self._arrived = {
                item_id: (stamp, entry)
                for item_id, (stamp, entry) in self._arrived.items()
                if stamp > until
            }
            self._until = until
            self.current = Catalogue(snapshot).put(entry for _, entry in self._arrived.values())
        self._seen = seen

    def follow(self, now: datetime) -> None:
        """Take up the items that were put since the last call. For one thread at a time."""
        rows = self._items.poll(now)
        if not rows:
            return
        with self._changing:
            new: dict[str, Entry] = {}
            for stamp, row in rows:
                item = item_of(row)
                before, _ = self._arrived.get(item[ITEM_ID], (self._until, None))
                if stamp > before:
                    new[item[ITEM_ID]] = entry = Entry.of(item)
                    self._arrived[item[ITEM_ID]] = stamp, entry
            self.current = self.current.put(new.values())


def first_not_online(root: Path, lake: Lake, since: datetime, now: datetime) -> datetime:
    """The first hour since then of which the online store may lack events: journals lie in `root`.

    An hour is online once sequences of it were materialized; what was closed before its end is not
    all of it. At the latest it is the hour before this one, which a follower reads anyway.
    """
    online = lake.covered(_SEQUENCES)
    closed = barred(root)
    hours = [hour for hour in journal_hours(root) if hour >= hour_floor(since)]
    lacking = [h for h in hours if h + HOUR > closed or not any(w.contains(h) for w in online)]
    return min([*lacking, hour_floor(now) - HOUR])
