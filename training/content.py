"""What an item says about itself, as numbers: hashed words, and the vectors that it was given.

Words of title, text and categories become a row of bucket numbers (0 is padding) for an embedding
bag. A bucket depends on the word alone, so an item that appeared a minute ago has a vector from its
content at once. Vectors of its text, an image or a sound stand side by side in one row.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa

from nearline.errors import BadInput
from nearline.modalities import require_alike, widths_of
from nearline.schema import ITEM_ID, MODALITIES

LONGEST = 32
"""Most features kept of one item; title and categories come before the text."""

_SHORTEST = 1e-12
"""A given vector as short as this says nothing."""

_WORD = re.compile(r"\w+")
_ANY = "any"
"""A feature that every item has: without words, an item is at least an item."""


def content_ids(items: pa.Table, *, buckets: int) -> np.ndarray:
    """Bucket numbers 1 to `buckets` of each item (ITEM_SCHEMA), int64 (items, LONGEST), padded."""
    columns = (items[name].to_pylist() for name in ("title", "text", "categories"))
    ids = np.zeros((items.num_rows, LONGEST), dtype=np.int64)
    for row, (title, text, categories) in enumerate(zip(*columns, strict=True)):
        found = dict.fromkeys(features(title, text, categories))
        hashed = [bucket(feature, buckets) for feature in list(found)[:LONGEST]]
        ids[row, : len(hashed)] = hashed
    return ids


def features(
    title: str | None, text: str | None, categories: Sequence[str] | None
) -> Iterator[str]:
    """The named features of one item: whole categories, words and pairs of words of the title,
    words of the text."""
    yield _ANY
    for category in categories or ():
        yield f"category:{category.lower()}"
    words = _WORD.findall((title or "").lower())
    yield from (f"word:{word}" for word in words)
    yield from (f"pair:{first} {second}" for first, second in pairwise(words))
    yield from (f"word:{word}" for word in _WORD.findall((text or "").lower()))


def bucket(feature: str, buckets: int) -> int:
    """The bucket of a feature, 1 to `buckets`: the same on every machine and in every process."""
    return zlib.crc32(feature.encode()) % buckets + 1


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
            vectors = numbers.reshape(-1, width)
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            part[there] = vectors / np.maximum(lengths, _SHORTEST)
    return np.concatenate(parts, axis=1)


def in_order(items: pa.Table, item_ids: Sequence[str]) -> pa.Table:
    """The catalogue's rows of `item_ids`, in that order; an item that it lacks is all null."""
    place = {item_id: row for row, item_id in enumerate(items[ITEM_ID].to_pylist())}
    rows = pa.array([place.get(item_id) for item_id in item_ids], pa.int64())
    return items.take(rows)
