"""A release's user encoder, run from its files: what a user did goes in, a vector comes out.

Serving, the gate and the replay run it the same way. The network reads items as vectors, not as
numbers: these lie in the release's item matrix, which all processes map from one file.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nearline import bundle
from nearline.sequence import PAD, ModelInput

if TYPE_CHECKING:
    import onnxruntime


@dataclass(frozen=True, eq=False)
class UserEncoder:
    """The network with what it reads of items. Safe to use from many threads, one core for each.

    `matrix` is float32 (items, dim), its rows of length 1; `norms`, float32 (items,), are the
    lengths that they have as the network reads them.
    """

    session: "onnxruntime.InferenceSession"
    matrix: np.ndarray
    norms: np.ndarray

    @cached_property
    def _inputs(self) -> list[str]:
        """What the network reads: one of an earlier Nearline reads less."""
        return [put.name for put in self.session.get_inputs()]

    @classmethod
    def open(cls, folder: Path, file: str = bundle.ENCODER) -> "UserEncoder":
        """One of the encoder files in a release's folder."""
        import onnxruntime

        # Requests run side by side, one thread each; a pool in every session only adds waiting.
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        cpu = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(folder / file, options, providers=cpu)
        matrix, norms = bundle.read_matrix(folder), np.load(folder / bundle.ITEM_NORMS)
        return cls(session, np.asarray(matrix), norms)

    def __call__(self, inputs: ModelInput) -> np.ndarray:
        """User vectors, float32 (batch, dim), of padded inputs with at least one event each."""
        rows = inputs.items - 1  # of padding, some item's: its length is set to 0
        lengths = np.where(inputs.items == PAD, np.float32(0), self.norms[rows])
        vectors = self.matrix[rows] * lengths[..., None]  # (batch, length, dim)
        told = {**inputs._asdict(), "items": vectors}
        read = {name: told[name] for name in self._inputs}
        (found,) = self.session.run(["user"], read)
        return np.asarray(found)
