"""The catalogue as requests need it: titles, what is available, and items that share categories."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from nearline.errors import NearlineError
from nearline.lake import CATALOGUE, Lake
from nearline.schema import ITEM_ID, ITEM_SCHEMA


@dataclass(frozen=True)
class Entry:
    """One item of the catalogue."""

    title: str | None
    available: bool
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Catalogue:
    """One state of the catalogue. Never changed: a new snapshot makes a new one."""

    entries: Mapping[str, Entry] = field(default_factory=dict)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self.entries

    def title(self, item_id: str) -> str | None:
        """The item's title; None for an item that is not here."""
        entry = self.entries.get(item_id)
        return entry.title if entry else None

    def recommendable(self, item_id: str) -> bool:
        """Whether the item may be shown. Without any catalogue, every item may."""
        entry = self.entries.get(item_id)
        return entry.available if entry else not self.entries

    def alike(self, item_id: str) -> dict[str, float]:
        """Available items that share categories, with the share of all their categories in common.

        Empty when the item is unknown or has no categories.
        """
        entry = self.entries.get(item_id)
        wanted = set(entry.categories) if entry else set()
        common = Counter(other for name in wanted for other in self._by_category[name])
        common.pop(item_id, None)
        return {
            other: count / len(wanted | set(self.entries[other].categories))
            for other, count in common.items()
            if self.entries[other].available
        }

    @cached_property
    def _by_category(self) -> Mapping[str, list[str]]:
        found: defaultdict[str, list[str]] = defaultdict(list)
        for item_id, entry in self.entries.items():
            for name in set(entry.categories):
                found[name].append(item_id)
        return found


class CatalogueFile:
    """The lake's catalogue snapshot, read again when its file has changed."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._path = lake.snapshot_path(CATALOGUE)
        self._seen: object = None
        self.current = Catalogue()

    def refresh(self) -> bool:
        """Read the snapshot if it changed; whether it did. One thread calls this."""
        self._lake.fs.invalidate_cache(self._path)
        seen = self._lake.fs.ukey(self._path) if self._lake.fs.exists(self._path) else None
        if seen == self._seen:
            return False
        self.current = read_catalogue(self._lake)
        self._seen = seen
        return True


def read_catalogue(lake: Lake) -> Catalogue:
    """The catalogue snapshot of the lake; empty when there is none.

    Raises NearlineError when the file cannot be read.
    """
    columns = [ITEM_ID, "title", "available", "categories"]
    try:
        table = lake.read_snapshot(CATALOGUE, schema=ITEM_SCHEMA).select(columns)
    except (OSError, ValueError) as error:
        raise NearlineError(f"catalogue {lake.snapshot_path(CATALOGUE)}: {error}") from error
    rows = zip(*(table[name].to_pylist() for name in columns), strict=True)
    return Catalogue(
        {
            item_id: Entry(title, available is not False, tuple(categories or ()))
            for item_id, title, available, categories in rows
        }
    )
