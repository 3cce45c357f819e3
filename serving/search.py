"""Items by keywords: an index over titles, categories and texts, in memory (SQLite FTS5, BM25).

To read the words of a million items takes a quarter of a minute, so what the first worker made of a
snapshot is kept in a file, which other workers and later starts take over.
"""

import logging
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Lock

import numpy as np

from nearline.locks import alone
from serving.catalogue import Catalogue, Mark, Snapshot, Words
from serving.filters import ANY, Filters

log = logging.getLogger(__name__)

MOST_FOUND = 2000
"""So many items, the best of those that may be shown, are looked at for one search."""

MOST_SCORED = 10_000
"""Of more items that have the words, so many are scored: those put last, then the shortest.

Of items that have a word once in the title, the shortest are the best by BM25.
"""

_MOST_WORDS = 16
_KEPT_FROM = 10_000
"""An index of fewer items is sooner made than asked about."""

_MOST_FILTERS = 16
"""Of so many filters it is kept which items they want, a byte an item."""

_SUFFIX = ".v2.sqlite"
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
    WITH scored AS (
        SELECT rowid AS place, -bm25(items, 0, 10, 5, 1) AS score
        FROM items WHERE items MATCH :words AND substr(:wanted, rowid + 1, 1) = x'01'
        ORDER BY rowid DESC LIMIT :most_scored
    ), best AS (
        SELECT place, score FROM scored ORDER BY score DESC, place DESC LIMIT :most_found
    )
    SELECT items.item_id, score
    FROM best JOIN items ON items.rowid = place ORDER BY score DESC, place DESC
"""
"""A word in the title counts ten times as much as one in the text, in a category five times.

SQLite looks into `wanted` by itself: a call of Python for each item would wait for Python's lock,
and the ids of all items that are scored take as long as their scores.
"""

_COUNT = "SELECT count(*) FROM items WHERE items MATCH ?"
_HAS = "SELECT 1 FROM items WHERE items MATCH ? LIMIT 1"


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
        self._places = _places(self._state.snapshot)
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
        places = _places(catalogue.snapshot)
        with self._using:
            self._items.close()
            self._items, self._snapshot = items, catalogue.snapshot
            self._state, self._added, self._wanted_by = Catalogue(catalogue.snapshot), {}, {}
            self._places = places

    def has(self, text: str, catalogue: Catalogue, *, every: bool) -> bool:
        """Whether any item has every word of a text, or a word that begins with it; else any."""
        terms = _terms(text)
        if not terms:
            return False
        words = _all(terms) if every else _any(terms)
        with self._using:
            self._take_up(catalogue)
            return self._items.execute(_HAS, (words,)).fetchone() is not None

    def find(
        self, text: str, catalogue: Catalogue, filters: Filters = ANY, *, every: bool
    ) -> list[tuple[str, float]]:
        """Pairs of (item, BM25 score) for the words of a text, the MOST_FOUND best, best first.

        Those are items on offer that the filters want, and that have every word of it, or without
        `every` any, where the items that have a rare word come first. Of more than MOST_SCORED not
        all are scored.
        """
        terms = _terms(text)
        if not terms:
            return []
        with self._using:
            self._take_up(catalogue)
            wanted = self._wanted(filters)
            if every:
                return self._best(_all(terms), wanted)
            found = self._with_rare(terms, wanted) if wanted.count(1) > MOST_SCORED else []
            if len(found) < MOST_FOUND:
                known = dict(found)
                found += [p for p in self._best(_any(terms), wanted) if p[0] not in known]
            return found[:MOST_FOUND]

    def _with_rare(self, terms: Sequence[str], wanted: bytearray) -> list[tuple[str, float]]:
        """What has a rarer one of some words: common ones only add to its score.

        Else the shortest items that have a common word would be scored in place of these. Without
        a word that MOST_SCORED items or fewer have, the rarest are what is rarer. A rarer word
        stands in both halves of the query, so it counts twice.
        """
        counts = {term: self._items.execute(_COUNT, (term,)).fetchone()[0] for term in terms}
        most = max(MOST_SCORED, min(filter(None, counts.values()), default=0))
        rarer = [term for term in terms if counts[term] <= most]
        if len(rarer) == len(terms):
            return []
        return self._best(f"({_any(rarer)}) AND ({_any(terms)})", wanted)

    def _best(self, words: str, wanted: bytearray) -> list[tuple[str, float]]:
        most = {"most_scored": MOST_SCORED, "most_found": MOST_FOUND}
        return self._items.execute(_FIND, {"words": words, "wanted": wanted} | most).fetchall()

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
            wanted = snapshot.on_offer & snapshot.matching(filters)
            found = bytearray(wanted[snapshot.longest_first].tobytes())
            put = state.changes.values()
        found.extend(bytes(len(snapshot) + len(self._added) - len(found)))
        for entry in put:
            found[self._place(entry.item_id)] = entry.on_offer and filters.match(entry)
        if len(self._wanted_by) >= _MOST_FILTERS:
            self._wanted_by.clear()
        self._wanted_by[filters] = state.mark, found
        return found

    def _place(self, item_id: str) -> int:
        """Where an item is in the index: by the snapshot's lengths, or beyond for a new item."""
        known = int(self._snapshot.rows([item_id])[0]) if self._snapshot else -1
        if known >= 0:
            return int(self._places[known])
        return self._added.setdefault(item_id, len(self._places) + len(self._added))


def _places(snapshot: Snapshot) -> np.ndarray:
    """Where each row of the snapshot is in its index, int32 (rows,)."""
    rows = snapshot.longest_first
    places = np.empty_like(rows)
    places[rows] = np.arange(len(rows))
    return places


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
    for other in file.parent.glob("*.sqlite"):
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


def _terms(text: str) -> list[str]:
    """The words of a text as FTS5 takes them."""
    return [_term(word) for word in _WORD.findall(text)[:_MOST_WORDS]]


def _all(terms: Sequence[str]) -> str:
    return " AND ".join(terms)


def _any(terms: Sequence[str]) -> str:
    return " OR ".join(terms)


def _term(word: str) -> str:
    """A word as FTS5 takes it: in quotes, so that no word is an operator; of one letter, whole."""
    return f'"{word}"*' if len(word) > 1 else f'"{word}"'
