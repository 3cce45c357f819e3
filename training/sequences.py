"""Files of users' items without times, as public benchmarks have them.

One user a line, `user item item …`, separated by spaces or tabs, the oldest item first. Some
benchmarks split off the last item of each user: then a line is `item item …`, and the same line of
a second file is the item that follows. Attributes are one JSON object: item to a list of attribute
ids. Any file may be compressed as `.xz`.
"""

import json
import lzma
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from nearline.errors import BadInput
from nearline.schema import EVENT_ID, EVENT_TS, EVENT_TYPE, ITEM_ID, TIMESTAMP, USER_ID, VALUE
from nearline.sequence import PAD, Vocabulary
from training.content import content_ids
from training.dataset import Interactions, interactions

EVENT = "event"
"""The one event type of such files."""


def read_sequences(path: Path) -> dict[str, list[str]]:
    """Each user's items, the oldest first. Raises BadInput, with the line, for a malformed file.

    Empty lines are passed over.
    """
    found: dict[str, list[str]] = {}
    for number, (user, *items) in _lines(path):
        if not items:
            raise BadInput(
                f"{path}, line {number}: user {user!r} has no items; "
                "a line is `user item item …`, separated by spaces"
            )
        if user in found:
            raise BadInput(
                f"{path}, line {number}: user {user!r} has an earlier line; "
                "put all items of a user on one line, after the user"
            )
        found[user] = items
    if not found:
        raise BadInput(f"{path} is empty: it needs a line `user item item …` for each user")
    return found


def read_split_sequences(path: Path, targets: Path) -> dict[str, list[str]]:
    """Each line's items with the target of the same line at the end; users are numbered.

    Raises BadInput, with the line, where the two files do not belong together.
    """
    histories, lasts = dict(_lines(path)), dict(_lines(targets))
    if not histories:
        raise BadInput(f"{path} is empty: it needs a line `item item …` for each user")
    for number in sorted(histories.keys() | lasts.keys()):
        if number not in histories or len(lasts.get(number, [])) != 1:
            raise BadInput(
                f"{path} and {targets}, line {number}: "
                f"{' '.join(histories.get(number, []))[:40]!r} is followed by "
                f"{' '.join(lasts.get(number, []))[:40]!r}; "
                "each line of items needs one target on the same line of the other file"
            )
    return {str(number): histories[number] + lasts[number] for number in histories}


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The words of each line that has any, with its number from 1."""
    for number, line in enumerate(text_of(path).splitlines(), start=1):
        if line.strip():
            yield number, line.split()


def read_attributes(path: Path) -> dict[str, list[str]]:
    """Each item's attributes. Raises BadInput for a malformed file."""
    try:
        found = json.loads(text_of(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path} holds no JSON object: it must be item to list of attribute ids")
    for item, attributes in found.items():
        ids = attributes if isinstance(attributes, list) else [None]
        if not all(type(name) in (int, str) for name in ids):
            raise BadInput(
                f"{path}: item {item!r} has {json.dumps(attributes)[:60]}; "
                "it must be a list of attribute ids, numbers or texts"
            )
    return {item: [str(name) for name in attributes] for item, attributes in found.items()}


def text_of(path: Path) -> str:
    """The text of a file, unpacked where its name ends in .xz. Raises BadInput for none."""
    try:
        packed = path.read_bytes()
        return (lzma.decompress(packed) if path.suffix == ".xz" else packed).decode()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    except (lzma.LZMAError, UnicodeDecodeError) as error:
        kind = "UTF-8 text, packed as xz" if path.suffix == ".xz" else "UTF-8 text"
        raise BadInput(f"{path} is not {kind} ({error})") from error


def vocabulary_of(sequences: Mapping[str, Sequence[str]]) -> Vocabulary:
    """All items, in an order that tells nothing of who touched them when."""
    items = {item for touched in sequences.values() for item in touched}
    return Vocabulary(tuple(sorted(items)), (EVENT,))


def as_interactions(sequences: Mapping[str, Sequence[str]], vocabulary: Vocabulary) -> Interactions:
    """Sequences as events a microsecond apart: their order counts, and every gap is alike."""
    counts = [len(items) for items in sequences.values()]
    steps = np.concatenate([np.arange(count) for count in counts])
    table = pa.table(
        {
            USER_ID: pa.array(np.repeat(np.array(list(sequences), dtype=object), counts)),
            ITEM_ID: [item for items in sequences.values() for item in items],
            EVENT_TYPE: [EVENT] * len(steps),
            EVENT_TS: pa.array(steps).cast(TIMESTAMP),
            EVENT_ID: pa.array(steps).cast(pa.string()),
            VALUE: pa.nulls(len(steps), pa.float64()),
        }
    )
    return interactions(table, vocabulary, [EVENT])


def attribute_ids(
    attributes: Mapping[str, Sequence[str]] | None, vocabulary: Vocabulary, *, buckets: int
) -> np.ndarray:
    """The items' content, int64 (items, width): attributes hashed as a catalogue's categories are.

    Without attributes it is empty: an item is its id. Raises BadInput when no item has any.
    """
    items = vocabulary.item_ids
    if attributes is None:
        return np.full((len(items), 1), PAD, dtype=np.int64)
    if not any(attributes.get(item) for item in items):
        raise BadInput(
            f"none of the {len(attributes)} items with attributes is in the sequences "
            f"(which have {items[0]!r}, for one): give files that belong together"
        )
    nothing = pa.nulls(len(items), pa.string())
    categories = pa.array([attributes.get(item, []) for item in items], pa.list_(pa.string()))
    table = pa.table({"title": nothing, "text": nothing, "categories": categories})
    return content_ids(table, buckets=buckets)
