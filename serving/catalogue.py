"""The catalogue as requests need it: columns to filter by, items decoded when asked for.

`Snapshot` is the lake's catalogue; `Catalogue` is a snapshot and the items that changed since.
"""

import json
import logging
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nearline.columns import EXPIRES_TS, HIDDEN, PRICE
from nearline.errors import BadInput, NearlineError
from nearline.given import Given
from nearline.intake import put_alone
from nearline.lake import CATALOGUE, Lake
from nearline.partition import content_sha256
from nearline.records import as_number
from nearline.schema import ITEM_ID, ITEM_SCHEMA, MODALITIES
from nearline.sequence import microseconds
from nearline.windows import parse_time
from serving.filters import ANY, Filters, as_texts

log = logging.getLogger(__name__)

NEVER_US = np.iinfo(np.int64).max
"""When an item expires that does not."""

MOST_ALIKE = 2000
"""So many items, the closest, are looked at for those that share categories with one."""

MOST_DECODED = 20_000
"""Items of a snapshot that are kept decoded, some kilobytes each at most."""

_COLUMNS = (ITEM_ID, "title", "text", "categories", "created_ts", "available", "attributes")
_NONE = np.zeros(0, dtype=np.int64)


class Words(NamedTuple):
    """What tells of an item in words; `categories` are one text."""

    item_id: str
    title: str | None
    categories: str
    text: str | None


@dataclass(frozen=True)
class Entry:
    """One item of the catalogue. Times are microseconds since 1970.

    `given` are the vectors of an item that was put; None in the snapshot, whose vectors are not
    read, so that an item which it has taken up is the same one.
    """

    item_id: str
    title: str | None = None
    text: str | None = None
    categories: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    available: bool = True
    created_us: int = 0
    given: Given | None = field(default=None, compare=False)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Entry":
        """The item of a row of ITEM_SCHEMA, as Python values."""
        return cls(
            item_id=row[ITEM_ID],
            title=row["title"],
            text=row["text"],
            categories=tuple(name for name in row["categories"] or () if name is not None),
            attributes=_attributes(row["attributes"]),
            available=row["available"] is not False,
            created_us=microseconds(row["created_ts"]) if row["created_ts"] else 0,
            given=_given(row),
        )

    @property
    def words(self) -> Words:
        """What tells of the item in words."""
        return Words(self.item_id, self.title, joined(self.categories), self.text)

    @property
    def price(self) -> float | None:
        """The price in the attributes, if that is a number."""
        return as_number(self.attributes.get(PRICE))

    @property
    def expires_us(self) -> int:
        """When the item is no longer shown; NEVER_US without a time that can be read."""
        return _expiry(self.attributes.get(EXPIRES_TS))

    @property
    def on_offer(self) -> bool:
        """Whether the item is available and not hidden."""
        return self.available and self.attributes.get(HIDDEN) is not True

    def shown(self, now_us: int) -> bool:
        """Whether the item may be shown now."""
        return self.on_offer and now_us < self.expires_us


class Snapshot:
    """One state of the lake's catalogue, never changed; what filters need is made when it is used.

    Arrays of rows are in the table's order. One that is `whole` has all items: what is not in it is
    not to be shown.
    """

    def __init__(self, table: pa.Table, *, whole: bool = True) -> None:
        self.whole = whole and table.num_rows > 0
        self._table = table.select(_COLUMNS).combine_chunks()
        self._row = {item_id: row for row, item_id in enumerate(table[ITEM_ID].to_pylist())}
        self._decoded: dict[int, Entry] = {}
        self._values: dict[str, dict[str, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self._row)

    def words(self) -> Iterator[Words]:
        """What tells of each item in words, by `longest_first`; nothing else is decoded."""
        told = self._told
        for start in range(0, len(self), 4096):
            batch = told.take(pa.array(self.longest_first[start : start + 4096]))
            for item_id, title, names, text in zip(*(c.to_pylist() for c in batch), strict=True):
                yield Words(item_id, title, joined(names or ()), text)

    @cached_property
    def longest_first(self) -> np.ndarray:
        """The rows by how many words tell of each, int32 (rows,); of equal ones the last first."""
        told = self._told
        lengths = _numpy(pc.fill_null(pc.list_value_length(told["categories"]), 0))
        for name in ("title", "text"):
            lengths = lengths + _numpy(pc.fill_null(pc.count_substring(told[name], " "), 0))
        return np.argsort(lengths, kind="stable")[::-1].astype(np.int32)

    def words_checksum(self) -> str:
        """Tells apart snapshots whose `words` differ."""
        return content_sha256(self._told)

    @property
    def _told(self) -> pa.Table:
        return self._table.select((ITEM_ID, "title", "categories", "text"))

    def entry(self, item_id: str) -> Entry | None:
        """An item, if it is here."""
        row = self._row.get(item_id)
        return None if row is None else self.at(row)

    def at(self, row: int) -> Entry:
        """The item of a row."""
        found = self._decoded.get(row)
        if found is None:
            if len(self._decoded) >= MOST_DECODED:
                self._decoded.clear()
            found = Entry.of(self._table.slice(row, 1).to_pylist()[0])
            self._decoded[row] = found
        return found

    def rows(self, item_ids: Sequence[str]) -> np.ndarray:
        """The row of each item, int64 (items,); -1 for one that is not here."""
        return np.fromiter((self._row.get(i, -1) for i in item_ids), np.int64, len(item_ids))

    @cached_property
    def on_offer(self) -> np.ndarray:
        """Which rows are available and not hidden, bool (rows,)."""
        found = _numpy(pc.fill_null(self._table["available"], True)).copy()
        for row, hidden in self._attribute(HIDDEN):
            found[row] &= hidden is not True
        return found

    @cached_property
    def expires_us(self) -> np.ndarray:
        """When each row expires, int64 (rows,)."""
        found = np.full(len(self), NEVER_US, dtype=np.int64)
        given = list(self._attribute(EXPIRES_TS))
        for row, value in given:
            found[row] = _expiry(value)
        unreadable = sum(found[row] == NEVER_US for row, value in given if value is not None)
        if unreadable:
            log.warning(
                "%d items have an %s that is no time: they never expire", unreadable, EXPIRES_TS
            )
        return found

    @cached_property
    def created_us(self) -> np.ndarray:
        """When each row was created, int64 (rows,); 0 where that is unknown."""
        return _numpy(pc.fill_null(self._table["created_ts"].cast(pa.int64()), 0))

    @cached_property
    def prices(self) -> np.ndarray:
        """The price of each row, float64 (rows,); NaN without one."""
        found = np.full(len(self), np.nan)
        for row, value in self._attribute(PRICE):
            number = as_number(value)
            found[row] = np.nan if number is None else number
        return found

    def matching(self, filters: Filters) -> np.ndarray:
        """Which rows are what is wanted, bool (rows,): `Filters.match` for all at once."""
        found = np.ones(len(self), dtype=bool)
        if filters.categories:
            found &= self._any(self.in_category(name) for name in filters.categories)
        if filters.price_min is not None:
            found &= self.prices >= filters.price_min
        if filters.price_max is not None:
            found &= self.prices <= filters.price_max
        for name, wanted in filters.attributes:
            rows_of = self._rows_by_value(name)
            found &= self._any(rows_of.get(text, _NONE) for text in wanted)
        return found

    def in_category(self, name: str) -> np.ndarray:
        """The rows that have a category."""
        return self._by_category.get(name, _NONE)

    def alike(
        self, categories: Iterable[str], filters: Filters, then: np.ndarray | None
    ) -> dict[str, float]:
        """The items closest by categories: see `Catalogue.alike`. None of them is decoded."""
        shares = self.shares(categories) * (self.on_offer & self.matching(filters))
        rows = np.flatnonzero(shares)
        keys = [-shares[rows]] if then is None else [-then[rows], -shares[rows]]
        rows = rows[np.lexsort(keys)[:MOST_ALIKE]]
        item_ids = self._table[ITEM_ID].take(pa.array(rows)).to_pylist()
        return dict(zip(item_ids, shares[rows].tolist(), strict=True))

    def shares(self, categories: Iterable[str]) -> np.ndarray:
        """How much of all categories each row has in common with these, 0 to 1, float64 (rows,)."""
        wanted = set(categories)
        common = np.zeros(len(self))
        for name in wanted:
            common[self.in_category(name)] += 1
        sizes = np.bincount(self._category_rows, minlength=len(self)) if len(self) else common
        return common / np.maximum(len(wanted) + sizes - common, 1)

    @cached_property
    def _category_rows(self) -> np.ndarray:
        return np.concatenate([_NONE, *self._by_category.values()])

    @cached_property
    def _by_category(self) -> Mapping[str, np.ndarray]:
        column = self._table["categories"].combine_chunks()
        names = pc.list_flatten(column).dictionary_encode()
        codes = _numpy(pc.fill_null(names.indices, -1))
        rows = _numpy(pc.list_parent_indices(column)).astype(np.int64)
        order = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[order], np.arange(len(names.dictionary) + 1))
        return {
            name: np.unique(rows[order[bounds[code] : bounds[code + 1]]])
            for code, name in enumerate(names.dictionary.to_pylist())
        }

    def _rows_by_value(self, name: str) -> Mapping[str, np.ndarray]:
        """The rows of each value of an attribute. A name that no item has is not kept in mind."""
        if name not in self._values:
            rows: dict[str, list[int]] = {}
            for row, value in self._attribute(name):
                for text in as_texts(value):
                    rows.setdefault(text, []).append(row)
            if not rows:
                return {}
            self._values[name] = {text: np.array(found) for text, found in rows.items()}
        return self._values[name]

    def _attribute(self, name: str) -> Iterator[tuple[int, Any]]:
        """The rows that have an attribute, with its value: only rows that mention it are parsed."""
        column = self._table["attributes"]
        forms = {json.dumps(name), json.dumps(name, ensure_ascii=False)}
        mentioned = [pc.fill_null(pc.match_substring(column, form), False) for form in forms]
        rows = np.flatnonzero(np.any([_numpy(each) for each in mentioned], axis=0))
        for row, text in zip(rows.tolist(), column.take(pa.array(rows)).to_pylist(), strict=True):
            attributes = _attributes(text)
            if name in attributes:
                yield row, attributes[name]

    def _any(self, parts: Iterable[np.ndarray]) -> np.ndarray:
        found = np.zeros(len(self), dtype=bool)
        for rows in parts:
            found[rows] = True
        return found


class Mark(NamedTuple):
    """How far a state of the catalogue goes: so many of the items that were put to a snapshot."""

    put: Sequence[str]
    length: int


@dataclass(frozen=True, eq=False)
class Catalogue:
    """One state of the catalogue: a snapshot, and the items that are new or other since.

    States that follow each other share the list of what was put, of which each has a part: what is
    made of one is brought up to a later one by what was put in between (`since`).
    """

    snapshot: Snapshot = field(default_factory=lambda: Snapshot(ITEM_SCHEMA.empty_table()))
    changes: Mapping[str, Entry] = field(default_factory=dict)
    _put: list[str] = field(default_factory=list)
    _length: int = 0

    @property
    def mark(self) -> Mark:
        """What `since` takes to tell what was put after this state."""
        return Mark(self._put, self._length)

    def put(self, entries: Iterable[Entry]) -> "Catalogue":
        """The state that follows when these are put; a state is followed by one at most."""
        new = {entry.item_id: entry for entry in entries}
        self._put.extend(new)
        return Catalogue(self.snapshot, {**self.changes, **new}, self._put, len(self._put))

    def since(self, mark: Mark | None) -> Collection[Entry] | None:
        """The items that were put since an earlier state of this line; None where it is none."""
        if mark is None or mark.put is not self._put or mark.length > self._length:
            return None
        put = dict.fromkeys(self._put[mark.length : self._length])
        return [self.changes[item_id] for item_id in put]

    def __contains__(self, item_id: str) -> bool:
        return self.entry(item_id) is not None

    def entry(self, item_id: str) -> Entry | None:
        """An item, if it is here."""
        return self.changes.get(item_id) or self.snapshot.entry(item_id)

    def title(self, item_id: str) -> str | None:
        """The item's title; None for an item that is not here."""
        entry = self.entry(item_id)
        return entry.title if entry else None

    def shown(self, item_id: str, now_us: int) -> bool:
        """Whether the item may be shown now; one that is not here may where not all items are."""
        entry = self.entry(item_id)
        return entry.shown(now_us) if entry else not self.snapshot.whole

    def alike(
        self, item_id: str, *, filters: Filters = ANY, then: np.ndarray | None = None
    ) -> dict[str, float]:
        """Items that share categories, with the share of all their categories in common.

        Of the snapshot, the MOST_ALIKE closest that are on offer and wanted; of equal ones those
        of which `then`, float (rows,), is highest. Empty when the item is unknown or has no
        categories.
        """
        entry = self.entry(item_id)
        wanted = set(entry.categories) if entry else set()
        found = {
            other: share
            for other, share in self.snapshot.alike(wanted, filters, then).items()
            if other not in self.changes
        }
        for name in wanted:
            for other in self._put_in.get(name, ()):
                common = len(wanted.intersection(other.categories))
                found[other.item_id] = common / len(wanted.union(other.categories))
        found.pop(item_id, None)
        return found

    @cached_property
    def _put_in(self) -> Mapping[str, list[Entry]]:
        """The items that changed, by their categories."""
        found: dict[str, list[Entry]] = {}
        for entry in self.changes.values():
            for name in entry.categories:
                found.setdefault(name, []).append(entry)
        return found


def read_snapshot(lake: Lake) -> Snapshot:
    """The catalogue snapshot of the lake; empty when there is none.

    Raises NearlineError when the file cannot be read.
    """
    try:
        table = lake.read_snapshot(CATALOGUE, schema=ITEM_SCHEMA, columns=_COLUMNS)
        return Snapshot(table, whole=not put_alone(lake))
    except (OSError, ValueError) as error:
        raise NearlineError(f"catalogue {lake.snapshot_path(CATALOGUE)}: {error}") from error


def joined(names: Iterable[str | None]) -> str:
    """Categories as one text."""
    return " ".join(name for name in names if name is not None)


def _given(row: Mapping[str, Any]) -> Given | None:
    """The vectors of a row that has their columns; four bytes a number."""
    if MODALITIES[0] not in row:
        return None
    return {name: array("f", row[name]) for name in MODALITIES if row[name]}


def _attributes(text: str | None) -> Mapping[str, Any]:
    """JSON text as attributes: a loaded file may hold anything, and only objects tell something."""
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _expiry(value: Any) -> int:
    try:
        return microseconds(parse_time(value)) if isinstance(value, str) else NEVER_US
    except (BadInput, OverflowError):
        return NEVER_US


def _numpy(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    return (
        column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()
    )
