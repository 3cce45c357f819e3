"""The index of a release with many items: written when it is staged, its recall measured."""

from pathlib import Path

import torch

from nearline import bundle as names
from nearline.encoder import UserEncoder
from nearline.settings import settings
from training.gate import made_up_users
from training.model import Model

_USERS = 256


def write_index(folder: Path, model: Model) -> dict[str, float]:
    """Write the index of a staged release of more than NEARLINE_EXACT_ITEMS items, and judge it.

    Returns how many lists it has, how many are read, and its recall on vectors of made-up users
    other than those that decided this; nothing where there are too few items.
    """
    config, matrix = settings(), names.read_matrix(folder)
    if len(matrix) <= config.exact_items:
        return {}
    import faiss

    from nearline.item_index import ItemIndex

    faiss.omp_set_num_threads(torch.get_num_threads())
    vectors = UserEncoder.open(folder)(made_up_users(model, users=_USERS))
    index = ItemIndex.build(matrix, vectors[::2], seed=config.seed)
    index.write(folder / names.ITEM_INDEX)
    return {
        "lists": index.lists.nlist,
        "probes": index.probes,
        "recall@100": round(index.recall(vectors[1::2]), 4),
    }
