"""Items that the API takes: journalled like events, and brought into the lake's catalogue.

The catalogue is the lake's snapshot and the rows that were journalled after it. The snapshot's
manifest names the stamp of the newest row that is in it, so bringing rows in again, or dying on
the way, neither loses an item nor takes one back to what it was before. It also tells whether the
snapshot holds nothing but rows of the journal: such a catalogue need not be whole; and how long
the vectors in it are, which others of their kind must be too.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from nearline.faults import one_line
from nearline.intake.door import id_in
from nearline.intake.files import (
    HourLock,
    journal_hours,
    parse_lines,
    read_hour,
    remove_hour,
    stamped,
    unstamped,
)
from nearline.intake.writer import Writer, utc_now
from nearline.lake import CATALOGUE, Lake
from nearline.locks import alone
from nearline.modalities import not_alike, require_alike, widths_of
from nearline.records import Item
from nearline.schema import ITEM_ID, ITEM_SCHEMA, MODALITIES, RECEIVED_TS
from nearline.settings import settings
from nearline.windows import hour_floor

_ITEM = "item"
_UNTIL = "intake/items until "
_PUT_ALONE = "intake/items alone"
_WIDTH = "intake/items width "
_NEVER = datetime.min.replace(tzinfo=UTC)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ItemReceipt:
    """What became of one item: `reason` says why it was refused."""

    item_id: str | None
    reason: str | None = None


def items_root() -> Path:
    """Where the journals of items lie."""
    return settings().intake / "items"


class ItemJournal:
    """One process's door for items; any number of threads may put, of processes too."""

    def __init__(self, root: Path, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.root = root
        self._writer = Writer(root, clock=clock)

    @classmethod
    def open(cls) -> "ItemJournal":
        """The journal that the settings name."""
        return cls(items_root())

    def put(self, rows: Sequence[Any]) -> list[ItemReceipt]:
        """Take items in, as the API's JSON gave them; those not refused are on disk on return.

        Raises NotKept when the disk does not keep them: then none was confirmed.
        """
        judged = [_read(row) for row in rows]
        if any(isinstance(found, Item) and _lengths(vars(found)) for found in judged):
            widths = _widths(Lake.open())
            judged = [_alike(f, widths) if isinstance(f, Item) else f for f in judged]
        items = [found for found in judged if isinstance(found, Item)]
        if items:
            begun = list(map(_begun, items))
            self._writer.append(len(begun), lambda stamps: list(map(stamped, begun, stamps)))
        return [ItemReceipt(f.item_id) if isinstance(f, Item) else f for f in judged]

    def close(self) -> None:
        """Let go of the files; the journal takes no more items."""
        self._writer.close()


def put_rows(lines: Sequence[bytes], path: str) -> Iterator[tuple[datetime, dict[str, Any]]]:
    """The journal rows of ended lines, with their stamps: what `item_of` reads."""
    return ((row[RECEIVED_TS], row) for row in parse_lines(lines, path))


def item_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The item of a journal row, as a row of ITEM_SCHEMA."""
    return Item.model_validate(row[_ITEM]).row()


def merged_until(lake: Lake) -> datetime:
    """The stamp of the newest journalled item that the lake's snapshot holds."""
    stamps = (each.removeprefix(_UNTIL) for each in _inputs(lake) if each.startswith(_UNTIL))
    return max(map(datetime.fromisoformat, stamps), default=_NEVER)


def put_alone(lake: Lake) -> bool:
    """Whether the lake's snapshot holds nothing but items that were put one by one, or nothing."""
    there = lake.fs.exists(lake.snapshot_path(CATALOGUE))
    return not there or _PUT_ALONE in _inputs(lake)


def _widths(lake: Lake) -> dict[str, int]:
    """How long the vectors of each modality are in the lake's snapshot."""
    told = (each.removeprefix(_WIDTH) for each in _inputs(lake) if each.startswith(_WIDTH))
    return {name: int(width) for name, _, width in (each.partition("=") for each in told)}


def _alike(item: Item, widths: dict[str, int]) -> Item | ItemReceipt:
    """The item, or why it is refused; the first vector of a modality sets its width."""
    lengths = _lengths(vars(item))
    for told in _odd(item.item_id, lengths, widths).values():
        return ItemReceipt(item.item_id, told)
    widths |= lengths
    return item


def _inputs(lake: Lake) -> Sequence[str]:
    path = lake.snapshot_path(CATALOGUE)
    return lake.manifest(path).inputs if lake.fs.exists(path) else ()


@alone("lake")
def merge_items(lake: Lake, loaded: pa.Table | None = None) -> int:
    """Bring the journalled items into the lake's catalogue, then `loaded` (ITEM_SCHEMA) on top.

    An item of the same id is replaced. Nothing is written when there is nothing new. Returns the
    items there are. Raises BadInput where vectors of one modality would differ in length.
    """
    new, until = _arrived(merged_until(lake))
    widths = _widths(lake)
    arrived = {item[ITEM_ID]: _without_odd(item, widths) for item in new}
    parts = [pa.Table.from_pylist(list(arrived.values()), schema=ITEM_SCHEMA)]
    if loaded is not None:
        parts.append(loaded.cast(ITEM_SCHEMA))
    inputs = [] if until == _NEVER else [f"{_UNTIL}{until.isoformat()}"]
    inputs += [_PUT_ALONE] if loaded is None and put_alone(lake) else []
    return _upsert(lake, parts, inputs)


def _arrived(since: datetime) -> tuple[list[dict[str, Any]], datetime]:
    """The items that were put after a stamp, oldest first, and the newest stamp that there is.

    What is put from now on has a later one, and comes in the next time: it need not wait while the
    catalogue is written.
    """
    root = items_root()
    with closing(HourLock(root)) as lock, lock.alone() as bar:
        rows = [row for hour in journal_hours(root) for row in read_hour(root, hour)]
        new = [row for row in rows if row[RECEIVED_TS] > since]
        until = max([since, *(row[RECEIVED_TS] for row in new)])
        # A clock may go back: no later row may get a stamp that counts as brought in.
        bar(until + timedelta(microseconds=1))
    return [item_of(row) for row in new], until


def prune_items(before: datetime) -> int:
    """Remove the item journals of hours that ended before then, brought in first; how many."""
    root = items_root()
    merge_items(Lake.open())
    hours = [hour for hour in journal_hours(root) if hour < hour_floor(before)]
    return sum(remove_hour(root, hour) for hour in hours)


def _upsert(lake: Lake, parts: Sequence[pa.Table], inputs: Sequence[str]) -> int:
    items = lake.read_snapshot(CATALOGUE, schema=ITEM_SCHEMA)
    if not any(part.num_rows for part in parts):
        return int(items.num_rows)
    for part in parts:
        kept = items.filter(pc.invert(pc.is_in(items[ITEM_ID], part[ITEM_ID].combine_chunks())))
        items = pa.concat_tables([kept, part])
    widths = widths_of(items)
    require_alike(items, widths)
    inputs = [*inputs, *(f"{_WIDTH}{name}={width}" for name, width in widths.items())]
    return lake.write_snapshot(CATALOGUE, items, inputs=inputs, sort_by=[ITEM_ID]).rows


def _without_odd(row: dict[str, Any], widths: dict[str, int]) -> dict[str, Any]:
    """A journalled item without vectors unlike the others: two doors let the first two in."""
    lengths = _lengths(row)
    odd = _odd(row[ITEM_ID], lengths, widths)
    for told in odd.values():
        log.warning("%s", told)
    widths.update({name: length for name, length in lengths.items() if name not in odd})
    return row | dict.fromkeys(odd)


def _lengths(row: Mapping[str, Any]) -> dict[str, int]:
    """How long the vectors of an item are, by their modality."""
    return {name: len(row[name]) for name in MODALITIES if row[name] is not None}


def _odd(item_id: str, lengths: Mapping[str, int], widths: Mapping[str, int]) -> dict[str, str]:
    """What is wrong with each vector of a length that others of its modality do not have."""
    return {
        name: not_alike(item_id, name, length, widths[name])
        for name, length in lengths.items()
        if length != widths.get(name, length)
    }


def _read(row: Any) -> Item | ItemReceipt:
    try:
        return Item.model_validate(row)
    except ValidationError as error:
        return ItemReceipt(id_in(row, ITEM_ID), one_line(error, whole="item"))


def _begun(item: Item) -> bytes:
    return unstamped({_ITEM: item.model_dump(mode="json", exclude_defaults=True)})
