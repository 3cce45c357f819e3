"""What items say about themselves, as arrays: hashed words, and the vectors that they were given.

Words of title, text and categories become a row of bucket numbers (0 is padding) for an embedding
bag. Vectors of a text, an image or a sound stand side by side in one row.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from nearline.errors import BadInput
from nearline.given import SHORTEST
from nearline.modalities import require_alike, widths_of
from nearline.schema import ITEM_ID, MODALITIES
from nearline.words import LONGEST, numbers


def content_ids(items: pa.Table, *, buckets: int) -> np.ndarray:
    """Bucket numbers 1 to `buckets` of each item (ITEM_SCHEMA), int64 (items, LONGEST), padded."""
    columns = (items[name].to_pylist() for name in ("title", "text", "categories"))
    ids = np.zeros((items.num_rows, LONGEST), dtype=np.int64)
    for row, words in enumerate(zip(*columns, strict=True)):
        hashed = numbers(*words, buckets=buckets)
        ids[row, : len(hashed)] = hashed
    return ids


def given_widths(items: pa.Table) -> tuple[int, ...]:
    """How long the items' vectors are, for each of MODALITIES; 0 for one that no item has."""
    found = widths_of(items)
    return tuple(found.get(name, 0) for name in MODALITIES)


def given_vectors(items: pa.Table, widths: Sequence[int]) -> np.ndarray:
    """The items' vectors side by side, float16 (items, sum of `widths`).

    Each is of length 1, and 0 where an item has none; a modality of width 0 is left out. Raises
    BadInput for vectors that are not alike, or of another width than asked for.
    """
    found = widths_of(items)
    require_alike(items, found)
    parts = [np.zeros((items.num_rows, width), dtype=np.float16) for width in widths]
    for name, width, part in zip(MODALITIES, widths, parts, strict=True):
        if width and name in found:
            if found[name] != width:
                raise BadInput(
                    f"the catalogue's {name}s have {found[name]} numbers, the model reads {width}: "
                    "`nearline train` makes one that reads the new ones"
                )
            there = items[name].is_valid().to_numpy()
            numbers = items[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            vectors = numbers.reshape(-1, width).astype(np.float64)  # whose squares are finite
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            part[there] = vectors / np.maximum(lengths, SHORTEST)
    return np.concatenate(parts, axis=1)


def in_order(items: pa.Table, item_ids: Sequence[str]) -> pa.Table:
    """The catalogue's rows of `item_ids`, in that order; an item that it lacks is all null."""
    place = {item_id: row for row, item_id in enumerate(items[ITEM_ID].to_pylist())}
    rows = pa.array([place.get(item_id) for item_id in item_ids], pa.int64())
    return items.take(rows)
