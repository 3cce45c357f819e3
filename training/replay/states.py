"""What is known of users at the moment that their state was made, and how it is encoded."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from nearline.bundle import ENCODER_COMPRESSED
from nearline.encoder import UserEncoder
from nearline.sequence import ModelInput
from training.bundle import ServedEncoder, write_encoders
from training.dataset import NONE, Interactions, requests
from training.model import Model

Encode = Callable[[ModelInput], np.ndarray]
"""What a release's encoder does: events (batch, length) to user vectors (batch, dim)."""

_TOKENS = 8192


def known_states(data: Interactions, targets: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """The last position of each target's user before a moment, at most the one before the target.

    NONE where nothing was known. A search by halves, for all targets at once.
    """
    first = data.begins[targets]
    low, high = first.copy(), np.maximum(data.states[targets] + 1, first)
    while (open_ := low < high).any():
        middle = (low + high) // 2
        earlier = data.times[np.minimum(middle, len(data) - 1)] < moments
        low = np.where(open_ & earlier, middle + 1, low)
        high = np.where(open_ & ~earlier, middle, high)
    found: np.ndarray = np.where(low > first, low - 1, NONE)
    return found


def encode_states(
    encode: Encode, data: Interactions, states: np.ndarray, moments: np.ndarray, *, length: int
) -> np.ndarray:
    """User vectors (states, dim) of states made at moments; of those alike one is encoded."""
    pairs, number = np.unique(np.stack([states, moments]), axis=1, return_inverse=True)
    states, moments = pairs
    lengths = np.minimum(states - data.begins[states] + 1, length)
    order = np.argsort(lengths, kind="stable")
    cuts = np.flatnonzero(np.diff(np.cumsum(lengths[order]) // _TOKENS)) + 1
    parts = [
        encode(requests(data, states[p], moments[p], length=length)) for p in np.split(order, cuts)
    ]
    vectors = np.empty((len(states), parts[0].shape[1]), dtype=np.float32)
    vectors[order] = np.concatenate(parts)
    found: np.ndarray = vectors[number.reshape(-1)]
    return found


def full_encoder(model: Model) -> Encode:
    """The encoder as the model has it."""
    served = ServedEncoder(model.eval())

    @torch.no_grad()
    def encode(inputs: ModelInput) -> np.ndarray:
        found: np.ndarray = served(*map(torch.from_numpy, inputs)).numpy()
        return found

    return encode


def compressed_encoder(model: Model) -> Encode:
    """The encoder as a release has it in its compressed form."""
    with TemporaryDirectory() as folder:
        write_encoders(Path(folder), model.eval())
        return UserEncoder.open(Path(folder), ENCODER_COMPRESSED)


ENCODERS = {"full": full_encoder, "compressed": compressed_encoder}
