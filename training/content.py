"""What an item says about itself, as numbers: hashed words of its title, text and categories.

Each item becomes a row of bucket numbers (0 is padding) for an embedding bag. A bucket depends on
the word alone, so an item that appeared a minute ago has a vector from its content at once.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa

from nearline.schema import ITEM_ID

LONGEST = 32
"""Most features kept of one item; title and categories come before the text."""

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


def in_order(items: pa.Table, item_ids: Sequence[str]) -> pa.Table:
    """The catalogue's rows of `item_ids`, in that order; an item that it lacks is all null."""
    place = {item_id: row for row, item_id in enumerate(items[ITEM_ID].to_pylist())}
    rows = pa.array([place.get(item_id) for item_id in item_ids], pa.int64())
    return items.take(rows)
