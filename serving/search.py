"""Items by keywords: an index over titles, categories and texts, in memory (SQLite FTS5, BM25).

To read the words of a million items takes a quarter of a minute, so what the first worker made of a
snapshot is kept in a file, which other workers and later starts take over.
"""

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Lock

from nearline.locks import alone
from serving.catalogue import Catalogue, Mark, Snapshot, Words
from serving.filters import ANY, Filters

log = logging.getLogger(__name__)

MOST_FOUND = 2000
"""So many items, the best of those that may be shown, are looked at for one search."""

_MOST_WORDS = 16
_KEPT_FROM = 10_000
"""An index of fewer items is sooner made than asked about."""

_MOST_FILTERS = 16
"""Of so many filters it is kept which items they want, a byte an item."""

_SUFFIX = ".v1.sqlite"
"""Of kept indexes; another number for another way to make them."""

_WORD = re.compile(r"\w+")
_TABLE = """
    CREATE VIRTUAL TABLE items USING fts5(
        item_id UNINDEXED, title, categories, text,
        tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3'
    )
"""
_PUT = "REPLACE INTO items (rowid, item_id, title, categories, text) VALUES (?, ?, ?, ?, ?)"
_FIND = """
    SELECT item_id, -bm25(items, 0, 10, 5, 1) AS score
    FROM items WHERE items MATCH ? AND wanted(rowid) ORDER BY score DESC, item_id LIMIT ?
"""
_HAS = "SELECT 1 FROM items WHERE items MATCH ? LIMIT 1"
"""A word in the title counts ten times as much as one in the text, in a category five times."""


class SearchIndex:
    """Finds items by words. Safe to use from many threads.

    `follow` makes the index anew for another snapshot, about 1.5 s for 100,000 items, or takes it
    from `folder`; until it has, items are found as they were, or, at first, not at all. Changes to
    a snapshot are taken up when items are looked for.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._items = _index(iter(()))
        self._snapshot: Snapshot | None = None
        self._state = Catalogue()
        self._added: dict[str, int] = {}
        self._wanted_by: dict[Filters, tuple[Mark, bytearray]] = {}
        self._using = Lock()

    @property
    def made(self) -> bool:
        """Whether a first snapshot was read."""
        return self._snapshot is not None

    def follow(self, catalogue: Catalogue) -> None:
        """Take over another snapshot. One thread calls this."""
        if catalogue.snapshot is self._snapshot:
            return
        items = _index_of(catalogue.snapshot, self._folder)
        with self._using:
            self._items.close()
            self._items, self._snapshot = items, catalogue.snapshot
            self._state, self._added, self._wanted_by = Catalogue(catalogue.snapshot), {}, {}

    def has(self, text: str, catalogue: Catalogue, *, every: bool) -> bool:
        """Whether any item has every word of a text, or a word that begins with it; else any."""
        asked = _query(text, every=every)
        if not asked:
            return False
        with self._using:
            self._take_up(catalogue)
            return self._items.execute(_HAS, (asked,)).fetchone() is not None

    def find(
        self, text: str, catalogue: Catalogue, filters: Filters = ANY, *, every: bool
    ) -> list[tuple[str, float]]:
        """Pairs of (item, BM25 score) for the words of a text, the MOST_FOUND best, best first.

        Those are items on offer that the filters want, and that have every word of it, or without
        `every` any.
        """
        asked = _query(text, every=every)
        if not asked:
            return []
        with self._using:
            self._take_up(catalogue)
            self._items.create_function("wanted", 1, self._wanted(filters).__getitem__)
            return self._items.execute(_FIND, (asked, MOST_FOUND)).fetchall()

    def _take_up(self, catalogue: Catalogue) -> None:
        """Bring the index up to a state of its snapshot, unless it is beyond that already."""
        if catalogue.snapshot is not self._snapshot or self._state.since(catalogue.mark):
            return
        put = catalogue.since(self._state.mark)
        changed = catalogue.changes.values() if put is None else put
        if changed:
            rows = ((self._place(entry.item_id), *entry.words) for entry in changed)
            self._items.executemany(_PUT, rows)
        self._state = catalogue

    def _wanted(self, filters: Filters) -> bytearray:
        """Which rows of the index are on offer and what is wanted: a byte each, as SQLite asks."""
        snapshot, state = self._state.snapshot, self._state
        mark, found = self._wanted_by.get(filters, (None, bytearray()))
        put = state.since(mark)
        if put is None:
            found = bytearray((snapshot.on_offer & snapshot.matching(filters)).tobytes())
            put = state.changes.values()
        found.extend(bytes(len(snapshot) + len(self._added) - len(found)))
        for entry in put:
            found[self._place(entry.item_id)] = entry.on_offer and filters.match(entry)
        if len(self._wanted_by) >= _MOST_FILTERS:
            self._wanted_by.clear()
        self._wanted_by[filters] = state.mark, found
        return found

    def _place(self, item_id: str) -> int:
        """The index's row of an item: that of the snapshot, or one beyond for a new item."""
        known = int(self._snapshot.rows([item_id])[0]) if self._snapshot else -1
        if known >= 0:
            return known
        size = len(self._snapshot) if self._snapshot else 0
        return self._added.setdefault(item_id, size + len(self._added))


def _index_of(snapshot: Snapshot, folder: Path) -> sqlite3.Connection:
    """The index of a snapshot, for the caller to change: the kept one, or made now and kept."""
    if len(snapshot) < _KEPT_FROM:
        return _index(snapshot.words())
    file = folder / f"{snapshot.words_checksum()}{_SUFFIX}"
    with alone("search"):  # one worker makes it, the others wait
        kept = _taken_over(file)
        if kept is not None:
            return kept
        made = _index(snapshot.words())
        try:
            _keep(made, file)
        except (OSError, sqlite3.Error):
            log.exception("the index of words could not be kept: each start makes it anew")
        return made


def _taken_over(file: Path) -> sqlite3.Connection | None:
    """A copy in memory of a kept index; None when there is none that can be read."""
    if not file.is_file():
        return None
    items = _in_memory()
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as kept:
            kept.backup(items)
        items.execute("SELECT count(*) FROM items WHERE items MATCH 'any'")
    except sqlite3.Error as error:
        log.warning("%s cannot be read (%s): the index of words is made anew", file, error)
        items.close()
        return None
    return items


def _keep(items: sqlite3.Connection, file: Path) -> None:
    """Write an index to a file, whole or not at all; those of other snapshots go."""
    file.parent.mkdir(parents=True, exist_ok=True)
    staged = file.with_suffix(".tmp")
    staged.unlink(missing_ok=True)
    with closing(sqlite3.connect(staged)) as kept:
        items.backup(kept)
    os.replace(staged, file)
    for other in file.parent.glob(f"*{_SUFFIX}"):
        if other != file:
            other.unlink()


def _in_memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)


def _index(items_words: Iterator[Words]) -> sqlite3.Connection:
    items = _in_memory()
    items.execute(_TABLE)
    items.execute("BEGIN")
    items.executemany(_PUT, ((place, *words) for place, words in enumerate(items_words)))
    items.execute("COMMIT")
    return items


def _query(text: str, *, every: bool) -> str:
    """A text as FTS5 takes it; empty without a word."""
    words = [_term(word) for word in _WORD.findall(text)[:_MOST_WORDS]]
    return (" AND " if every else " OR ").join(words)


def _term(word: str) -> str:
    """A word as FTS5 takes it: in quotes, so that no word is an operator; of one letter, whole."""
    return f'"{word}"*' if len(word) > 1 else f'"{word}"'
