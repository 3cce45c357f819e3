"""What an item says about itself, as numbers: the words of title, text and categories, hashed.

A number depends on the word alone, and a release holds a vector for each. So an item that appeared
a minute ago has a vector at once: training and serving make it alike.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

LONGEST = 32
"""Most features kept of one item; title and categories come before the text."""

_WORD = re.compile(r"\w+")
_ANY = "any"
"""A feature that every item has: without words, an item is at least an item."""


def numbers(
    title: str | None, text: str | None, categories: Sequence[str] | None, *, buckets: int
) -> list[int]:
    """The buckets, 1 to `buckets`, of the first LONGEST features of one item."""
    found = list(dict.fromkeys(features(title, text, categories)))
    return [bucket(feature, buckets) for feature in found[:LONGEST]]


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
