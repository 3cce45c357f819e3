"""Vectors that items were given, of their text, an image or a sound, and whether they fit together.

Who gives them chooses how long they are; of one modality all must be alike, as the model reads
them as one matrix.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nearline.errors import BadInput
from nearline.schema import ITEM_ID, MODALITIES

Widths = Mapping[str, int]
"""How many numbers a modality's vectors have; one that no item has is left out."""


def widths_of(items: pa.Table) -> dict[str, int]:
    """The length of the first vector of each modality."""
    found = {}
    for name in MODALITIES:
        lengths = pc.list_value_length(items[name])
        given = lengths.filter(pc.greater(lengths, 0))
        if len(given):
            found[name] = int(given[0].as_py())
    return found


def require_alike(items: pa.Table, widths: Widths) -> None:
    """Raises BadInput, naming an item, for a vector of another length or with what is no number."""
    for name, width in widths.items():
        lengths = pc.list_value_length(items[name])
        odd = pc.indices_nonzero(pc.fill_null(pc.not_equal(lengths, width), False))
        if len(odd):
            row = odd[0].as_py()
            raise BadInput(
                not_alike(items[ITEM_ID][row].as_py(), name, lengths[row].as_py(), width)
            )
        vectors = items[name].combine_chunks()
        numbers = pc.list_flatten(vectors).to_numpy(zero_copy_only=False)
        bad = np.flatnonzero(~np.isfinite(numbers))
        if len(bad):
            there = items.filter(pc.is_valid(items[name]))
            item_id = there[ITEM_ID][int(bad[0]) // width].as_py()
            raise BadInput(f"item {item_id!r}: {name} holds what is no finite number")


def not_alike(item_id: str, name: str, length: int, width: int) -> str:
    """What is wrong with a vector of another length."""
    return (
        f"item {item_id!r}: {name} has {length} numbers, those of other items have {width}; "
        "all vectors of one kind must be made by the same encoder"
    )
