"""A release's files, written from a model and read back to one."""

import json
import pickle
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nearline import bundle as names
from nearline.errors import CorruptRelease, StepFailed
from nearline.releases import Release
from nearline.sequence import PAD, Vocabulary
from training.content import content_ids, given_vectors, in_order
from training.lending import alike, borrow, by_given, lenders
from training.model import Model, ModelConfig, input_table, rearranged
from training.network import ServedNetwork, compress, export
from training.recipe import Learning

_UNREADABLE = (
    *(OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError),
    pickle.UnpicklingError,
)


@dataclass(frozen=True)
class Bundle:
    """What a training knows at its end, and a warm start at its beginning.

    `popularity` is float32 (items,), `size` names the recipe, `learning` is its part on learning.
    `ranker` is the ranker as text, if there is one; `text_encoder` names what made vectors of the
    items' texts, if something here did; `answers` are what the line's night answered to its exam
    (training/champion.py).
    """

    model: Model
    vocabulary: Vocabulary
    popularity: np.ndarray
    size: str
    learning: Learning
    ranker: str | None = None
    text_encoder: str | None = None
    answers: np.ndarray | None = None


class ServedEncoder(nn.Module):
    """What the served files must tell: the state after each user's newest event, by the model.

    It reads items as numbers (B, L), the other inputs likewise.
    """

    table: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.encoder = model.user_encoder
        self.register_buffer("table", input_table(model.item_tower()).detach())

    def forward(self, items: Tensor, types: Tensor, *told: Tensor) -> Tensor:
        states = self.encoder(F.embedding(items, self.table), types, *told)  # (B, L, D)
        last = (types != PAD).sum(dim=1) - 1  # (B,)
        found: Tensor = states[torch.arange(len(last)), last]
        return found  # (B, D)


def write_bundle(folder: Path, bundle: Bundle) -> None:
    """Write every file that nearline/bundle.py names into a staged folder.

    Raises StepFailed, and writes nothing, when a weight is no finite number.
    """
    model = bundle.model.eval()
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise StepFailed(f"{name} holds numbers that are not finite: lower the learning rate")
    names.write_vocabulary(folder, bundle.vocabulary)
    write_encoders(folder, model)
    np.save(folder / names.POPULARITY, bundle.popularity.astype(np.float32))
    config = {
        "size": bundle.size,
        **asdict(model.config),
        "learning": bundle.learning.model_dump(),
        "text_encoder": bundle.text_encoder,
    }
    (folder / names.CONFIG).write_text(json.dumps(config, indent=2))
    torch.save(model.state_dict(), folder / names.WEIGHTS)
    if bundle.ranker is not None:
        (folder / names.RANKER).write_text(bundle.ranker)
    if bundle.answers is not None:
        np.save(folder / names.ANSWERS, bundle.answers)


@torch.no_grad()
def write_encoders(folder: Path, model: Model) -> None:
    """Write the items' vectors and those of words, the encoder, and it compressed."""
    np.save(folder / names.ITEM_MATRIX, model.item_matrix().numpy())
    np.save(folder / names.WORD_VECTORS, model.item_tower.content.bag.weight.numpy().astype("f2"))
    np.save(folder / names.ITEM_NORMS, model.item_tower().norm(dim=-1).numpy())
    lenders(model).save(folder / names.LENDERS)
    alike(model).save(folder)
    given = by_given(model)
    if given is not None:
        given.save(folder)
    export(ServedNetwork(model.user_encoder), folder / names.ENCODER, dim=model.config.dim)
    compress(folder / names.ENCODER, folder / names.ENCODER_COMPRESSED)


def read_bundle(release: Release) -> Bundle:
    """A release as a model to go on from. Raises CorruptRelease when its files are not whole."""
    release.verify()
    folder = release.path
    try:
        config = json.loads((folder / names.CONFIG).read_text())
        told = {field.name for field in fields(ModelConfig)} & config.keys()
        shape = ModelConfig(**{name: config[name] for name in told})
        weights = torch.load(folder / names.WEIGHTS, weights_only=True)
        model = Model.restored(shape, weights)
        learning = Learning.model_validate(config["learning"])
        popularity = np.load(folder / names.POPULARITY)
        ranker = (folder / names.RANKER).read_text() if _has(release, names.RANKER) else None
        answers = np.load(folder / names.ANSWERS) if _has(release, names.ANSWERS) else None
    except _UNREADABLE as error:
        raise CorruptRelease(
            f"release {release.version} cannot be learned from ({error}): train anew"
        ) from error
    vocabulary, encoder = names.read_vocabulary(folder), config.get("text_encoder")
    size, known = config["size"], model.eval()
    return Bundle(known, vocabulary, popularity, size, learning, ranker, encoder, answers)


def _has(release: Release, file: str) -> bool:
    return file in release.manifest.files


def with_items(bundle: Bundle, item_ids: tuple[str, ...], catalogue: pa.Table) -> Model:
    """A release's model for other items, in the order of `item_ids`.

    Content is taken from the catalogue as it is now; an item that has left it keeps what it had.
    """
    old = bundle.vocabulary.item_row
    rows = torch.tensor([old.get(item_id, -1) for item_id in item_ids])
    config, kept = bundle.model.config, bundle.model.item_tower.content
    items = in_order(catalogue, item_ids)
    words = torch.from_numpy(content_ids(items, buckets=config.content_buckets))
    given = torch.from_numpy(given_vectors(items, config.given))
    there = set(catalogue["item_id"].to_pylist())
    left = torch.tensor([item_id not in there for item_id in item_ids]) & (rows >= 0)
    words[left], given[left] = kept.words[rows[left]], kept.given[rows[left]]
    before = rows.clamp(min=0)
    changed = (rows < 0) | (words != kept.words[before]).any(dim=1)
    changed |= (given != kept.given[before]).any(dim=1)
    model = rearranged(bundle.model, rows, words, given)
    borrow(model, changed.numpy())
    return model
