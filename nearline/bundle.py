"""What lies in a release's folder: the file names that training writes and serving reads.

- `item_ids.json`: list of item ids; its order is the rows' order everywhere in the release.
- `event_types.json`: list of event types; its order is the types' order in the encoder.
- `item_matrix.npy`: float32 (items, dim), every row of length 1.
- `item_norms.npy`: float32 (items,), the lengths that these rows have as the encoder reads them.
- `word_vectors.npy`: float16 (buckets + 1, dim), a vector for each of nearline/words.py's words,
  in the space of the item matrix: what an item is of which nothing is learned
  (nearline/content.py).
- `lenders.npz`: nearline/lenders.py's lists: which items lend their vectors to one like them.
- `alike.npy`, `alike_shares.npy`: nearline/alike.py's: which items are like each by content. Not
  in releases of an earlier Nearline.
- `given.npz`, `given_vectors.npy`: nearline/given.py's: what the vectors that items are given say
  in that space, and which items lend by them. Only in releases whose items were given some.
- `item_index.faiss`: nearline/item_index.py's index of that matrix. Only in releases of more than
  `NEARLINE_EXACT_ITEMS` items.
- `encoder.onnx`: the user encoder; `items`, float32 (batch, length, dim), with `types`, `gaps`,
  `values` and `hours`, int64 (batch, length), padded as nearline/sequence.py pads, give `user`,
  float32 (batch, dim), every row of length 1. See nearline/encoder.py.
- `encoder.int8.onnx`: the same, compressed: weights in int8.
- `popularity.npy`: float32 (items,), recent popularity, for whoever is not known at all.
- `config.json`: the model's hyper-parameters and `length`, the longest sequence that it reads.
- `ranker.txt`: the ranker as LightGBM writes it; its columns are those of nearline/ranking.py. Not
  in every release.
- `answers.npy`: int64 (targets, 2), what the release's night was asked before it learned it, and
  the rank that each target got (training/champion.py). Not in releases of an earlier Nearline.
- `weights.pt`: the parameters that a fine-tune starts from; serving never reads it.

A user vector (length 1) and an item vector of the same release meet in a dot product, the cosine.
"""

import json
from pathlib import Path

import numpy as np

from nearline.sequence import Vocabulary

ITEM_IDS = "item_ids.json"
EVENT_TYPES = "event_types.json"
ITEM_MATRIX = "item_matrix.npy"
ITEM_NORMS = "item_norms.npy"
WORD_VECTORS = "word_vectors.npy"
LENDERS = "lenders.npz"
ALIKE = "alike.npy"
ALIKE_SHARES = "alike_shares.npy"
GIVEN = "given.npz"
GIVEN_VECTORS = "given_vectors.npy"
ITEM_INDEX = "item_index.faiss"
ENCODER = "encoder.onnx"
ENCODER_COMPRESSED = "encoder.int8.onnx"
ENCODERS = {"full": ENCODER, "compressed": ENCODER_COMPRESSED}
"""By the names that NEARLINE_ENCODER takes."""

POPULARITY = "popularity.npy"
CONFIG = "config.json"
RANKER = "ranker.txt"
ANSWERS = "answers.npy"
WEIGHTS = "weights.pt"


def read_vocabulary(folder: Path) -> Vocabulary:
    """The items and event types that a release knows."""
    names = (json.loads((folder / name).read_text()) for name in (ITEM_IDS, EVENT_TYPES))
    item_ids, event_types = map(tuple, names)
    return Vocabulary(item_ids, event_types)


def write_vocabulary(folder: Path, vocabulary: Vocabulary) -> None:
    """Write the items and event types of a release that is being staged."""
    (folder / ITEM_IDS).write_text(json.dumps(vocabulary.item_ids))
    (folder / EVENT_TYPES).write_text(json.dumps(vocabulary.event_types))


def read_matrix(folder: Path) -> np.ndarray:
    """The item matrix, float32 (items, dim), mapped from the file."""
    return np.load(folder / ITEM_MATRIX, mmap_mode="r")
