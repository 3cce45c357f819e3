"""The ledger of one dataset: which windows are finished, a small file for each.

`<start>_<end>.json` is a finished window, `<start>_<end>.settled.json` a stretch of old ones that
housekeeping put together. `stale_<start>_<end>.json` are hours that were finished before an hour
that they look back to, and are to be computed again; `begun_<start>_<end>.json` are hours that are
being computed again; `expired_<before>.json` tells that older hours were removed.

The names tell the windows: what is covered costs one listing, and no file is opened.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from nearline.windows import Window, merge, without

_TIME = "%Y%m%dT%H"
_ENTRY = re.compile(r"/(\d{8}T\d{2})_(\d{8}T\d{2})(\.settled)?\.json$")
_STALE = re.compile(r"/(stale|begun)_(\d{8}T\d{2})_(\d{8}T\d{2})\.json$")
_KINDS = ("stale", "begun")
_EXPIRED = re.compile(r"/expired_(\d{8}T\d{2})\.json$")


@dataclass(frozen=True)
class Entry:
    """One file: the window that it tells of; whether housekeeping is done with it (`settled`)."""

    path: str
    window: Window
    settled: bool


@dataclass(frozen=True)
class Mark:
    """One file of hours that are to be computed again: `stale` or `begun`."""

    path: str
    kind: str
    window: Window


@dataclass(frozen=True)
class Account:
    """What the file of an entry says: `rows` of its window, and `since` when hours changed.

    That is the window's start, or an older hour that was written again for rows that came late.
    """

    window: Window
    rows: int
    since: datetime


class Ledger:
    """The finished windows of one dataset, in a folder of any fsspec file system."""

    def __init__(self, fs: Any, folder: str) -> None:
        self._fs = fs
        self._folder = folder

    def mark(self, window: Window, *, rows: int, since: datetime | None = None) -> None:
        """Record a finished window; `since` is the oldest hour that its late rows changed.

        What was recorded of windows within it is forgotten; its hours are stale no more, but for
        those that became so after they were begun.
        """
        path, since = self._path(window), min(since or window.start, window.start)
        older = [entry.path for entry in self._entries() if window.covers(entry.window)]
        self._write(path, Account(window, rows, since))
        self._remove(old for old in older if old != path)
        begun = self._fs.exists(self._hours_path("begun", window))
        self._cut(window, *(["begun"] if begun else _KINDS))

    def covered(self) -> list[Window]:
        """The finished hours that are neither stale nor removed, as the fewest windows."""
        return without(self.computed(), self.stale())

    def computed(self) -> list[Window]:
        """The finished hours that were not removed, stale ones too, as the fewest windows."""
        names = self._names()
        expired = _newest_expired(names)
        windows = merge(entry.window for entry in _entries(names))
        if expired is None:
            return windows
        return [Window(max(w.start, expired), w.end) for w in windows if w.end > expired]

    def gaps(self) -> list[Window]:
        """The hours between finished ones that were never computed."""
        return [Window(a.end, b.start) for a, b in pairwise(self.computed())]

    def stale(self) -> list[Window]:
        """The finished hours that are to be computed again, as the fewest windows."""
        return merge(mark.window for mark in self._marks(*_KINDS))

    def outdated(self) -> list[Window]:
        """The stale hours that no run has begun to compute again since they became so."""
        return merge(mark.window for mark in self._marks("stale"))

    def make_stale(self, window: Window) -> None:
        """Record that the hours of `window`, as far as they are finished, are to be done again."""
        self._put_hours("stale", window)

    def refresh(self, window: Window) -> None:
        """Record that the hours of `window` are stale no more."""
        self._cut(window, "stale")

    def begin(self, window: Window) -> None:
        """Record that what `window` looks back to is about to be read.

        For a step beside which others may write what it reads: what becomes stale from now on stays
        so when the window is marked. Until then, and after a kill, its hours are stale.
        """
        self._put_hours("begun", window)
        self.refresh(window)

    def _cut(self, window: Window, *kinds: str) -> None:
        for mark in self._marks(*kinds):
            if _overlap(mark.window, window):
                for rest in without([mark.window], [window]):
                    self._put_hours(mark.kind, rest)
                self._remove([mark.path])

    def rows(self) -> int:
        """The rows of all windows; a window within another one is not counted again."""
        return sum(account.rows for account in self._outermost(self._entries()))

    def since(self, window: Window) -> datetime:
        """The oldest hour that changed when `window` was finished.

        Entries within the window tell, as each is newer than those around it; where they leave
        hours out, all that overlap it.
        """
        told = [entry for entry in self._entries() if _overlap(entry.window, window)]
        within = [entry for entry in told if window.covers(entry.window)]
        if any(w.covers(window) for w in merge(entry.window for entry in within)):
            told = within
        late = (a.since for a in map(self._read, told) if a.since < a.window.start)
        return min((window.start, *late))

    def unsettled(self, before: datetime) -> list[Account]:
        """What was finished since housekeeping looked last, of windows that end by `before`."""
        found = [e for e in self._entries() if not e.settled and e.window.end <= before]
        return [self._read(entry) for entry in found]

    def settle(self, before: datetime) -> int:
        """Put the entries that end by `before` together where they touch; returns how many went.

        The whole is written before its parts go: at any moment the same hours are covered.
        """
        entries = [entry for entry in self._entries() if entry.window.end <= before]
        went = 0
        for stretch in merge(entry.window for entry in entries):
            parts = [entry for entry in entries if stretch.covers(entry.window)]
            target = self._path(stretch, settled=True)
            if [part.path for part in parts] == [target]:
                continue
            rows = sum(account.rows for account in self._outermost(parts))
            self._write(target, Account(stretch, rows, stretch.start))
            went += self._remove(part.path for part in parts if part.path != target)
        return went

    def expire(self, before: datetime) -> None:
        """Record that everything before `before` is removed, and forget its windows."""
        earlier = [path for path in self._names() if _EXPIRED.search(path)]
        target = f"{self._folder}/expired_{before:{_TIME}}.json"
        self._put(target, {"before": before})
        self._remove(path for path in earlier if path != target)
        self._remove(e.path for e in self._entries() if e.window.end <= before)

    def expired(self) -> datetime | None:
        """Before when everything was removed, if anything was."""
        return _newest_expired(self._names())

    def _entries(self) -> list[Entry]:
        return _entries(self._names())

    def _marks(self, *kinds: str) -> list[Mark]:
        found = [(path, match) for path in self._names() if (match := _STALE.search(path))]
        marks = (Mark(path, m[1], Window(_time(m[2]), _time(m[3]))) for path, m in found)
        return [mark for mark in marks if mark.kind in kinds]

    def _names(self) -> list[str]:
        try:
            return sorted(self._fs.ls(self._folder, detail=False))
        except FileNotFoundError:
            return []

    def _outermost(self, entries: Sequence[Entry]) -> Iterator[Account]:
        """The accounts of windows that lie in no other; of two of the same window, the newer."""
        by_window = {e.window: e for e in sorted(entries, key=lambda e: not e.settled)}
        reached: datetime | None = None
        for window in sorted(by_window, key=lambda w: (w.start, -w.end.timestamp())):
            if reached is None or window.end > reached:
                reached = window.end
                yield self._read(by_window[window])

    def _read(self, entry: Entry) -> Account:
        body = json.loads(self._fs.cat_file(entry.path))
        since = body.get("since")
        return Account(
            entry.window,
            body["rows"],
            datetime.fromisoformat(since) if since else entry.window.start,
        )

    def _write(self, path: str, account: Account) -> None:
        body = {
            "start": account.window.start,
            "end": account.window.end,
            "rows": account.rows,
        }
        if account.since < account.window.start:
            body["since"] = account.since
        self._put(path, body)

    def _put(self, path: str, body: dict[str, Any]) -> None:
        put_json(self._fs, path, body)

    def _remove(self, paths: Iterable[str]) -> int:
        gone = list(paths)
        for path in gone:
            self._fs.rm_file(path)
        return len(gone)

    def _path(self, window: Window, *, settled: bool = False) -> str:
        name = f"{window.start:{_TIME}}_{window.end:{_TIME}}{'.settled' if settled else ''}"
        return f"{self._folder}/{name}.json"

    def _hours_path(self, kind: str, window: Window) -> str:
        return f"{self._folder}/{kind}_{window.start:{_TIME}}_{window.end:{_TIME}}.json"

    def _put_hours(self, kind: str, window: Window) -> None:
        self._put(self._hours_path(kind, window), {"start": window.start, "end": window.end})


def put_json(fs: Any, path: str, body: Mapping[str, Any]) -> None:
    """Write a small JSON file of any fsspec file system, by one rename."""
    fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    with fs.open(f"{path}.tmp", "w") as out:
        json.dump(body, out, default=datetime.isoformat)
    fs.mv(f"{path}.tmp", path)


def _entries(names: Sequence[str]) -> list[Entry]:
    found = [(path, match) for path in names if (match := _ENTRY.search(path))]
    return [
        Entry(path, Window(_time(m[1]), _time(m[2])), settled=m[3] is not None) for path, m in found
    ]


def _newest_expired(names: Sequence[str]) -> datetime | None:
    found = [match for path in names if (match := _EXPIRED.search(path))]
    return max((_time(match[1]) for match in found), default=None)


def _time(text: str) -> datetime:
    return datetime.strptime(text, _TIME).replace(tzinfo=UTC)


def _overlap(a: Window, b: Window) -> bool:
    return a.start < b.end and b.start < a.end
