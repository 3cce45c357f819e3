"""What has been played, piece by piece, so that a run that was killed goes on where it stopped.

One folder a line: `NUMBER.npz` holds a finished piece's ranks and costs, `NUMBER.line` the line as
it then was. The number is the moment (microseconds) at which the piece ends, or its period. A piece
counts once its `.npz` is there; it is written last. Every file comes whole, by one rename.
"""

import json
import logging
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from nearline.replacing import replacing
from nearline.settings import settings
from training.checkpoint import key_of
from training.device import learning_device

log = logging.getLogger(__name__)

_UNREADABLE = (
    OSError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    BadZipFile,
    pickle.UnpicklingError,
)
"""What reading a damaged file raises, whoever wrote it."""

T = TypeVar("T")


@dataclass(frozen=True)
class Piece:
    """What a line foresaw of some time: a turn, or as much of it as there was time for.

    `ranks` is int32 (answers, events), the events in the order of time; `learning` and `answering`
    (answers,) are CPU seconds. `model_ages` are microseconds, one for each event.
    """

    ranks: np.ndarray
    model_ages: np.ndarray
    learning: float
    answering: np.ndarray


class Parts:
    """The finished pieces of one line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def numbers(self) -> list[int]:
        """Finished pieces, ascending."""
        return sorted(int(path.stem) for path in self.folder.glob("[!.]*.npz"))

    def read(self, number: int) -> Piece:
        """A finished piece."""
        with np.load(self.folder / f"{number}.npz") as kept:
            return Piece(
                kept["ranks"], kept["model_ages"], float(kept["learning"]), kept["answering"]
            )

    def write(self, number: int, found: Piece, save: Callable[[Path], None]) -> None:
        """Finish a piece: the line first, then what it answered; older lines go."""
        with replacing(self.line(number)) as staged:
            save(staged)
        with replacing(self.folder / f"{number}.npz") as staged, staged.open("wb") as file:
            np.savez(file, **vars(found))
        for old in self.folder.glob("[!.]*.line"):
            if old != self.line(number):
                old.unlink()

    def line(self, number: int) -> Path:
        """The file of the line as it was when a piece ended."""
        return self.folder / f"{number}.line"

    def go_on(self, read: Callable[[Path], T]) -> tuple[int, T] | None:
        """The number of the last piece, and what `read` makes of the line as it was at its end.

        None where the line is to begin anew: nothing was played, or its file cannot be read; the
        log tells of that, and all pieces go.
        """
        numbers = self.numbers()
        last = max(numbers, default=0)
        found = readable(self.folder, lambda: (last, read(self.line(last)))) if numbers else None
        if found is None:
            self._begin_anew()
        return found

    def check(self, read: Callable[[Path], T]) -> tuple[int, T] | None:
        """What `go_on` returns, once all pieces have been read as well: all go if one cannot be."""
        if readable(self.folder, lambda: [self.read(number) for number in self.numbers()]) is None:
            self._begin_anew()
        return self.go_on(read)

    def _begin_anew(self) -> None:
        for path in [*self.folder.glob("*.npz"), *self.folder.glob("*.line")]:
            path.unlink()


def readable(path: Path, read: Callable[[], T]) -> T | None:
    """What `read` makes of a file or folder; None where it is not there, or damaged (logged)."""
    try:
        return read() if path.exists() else None
    except _UNREADABLE as error:
        log.warning("%s cannot be read (%s): it is made anew", path, error)
        return None


def machine() -> list[int | str]:
    """What of this machine figures depend on: how many threads share sums, and the device."""
    return [settings().train_threads or torch.get_num_threads(), learning_device().type]


def digest(*parts: object) -> str:
    """A short name for what a run depends on: arrays, tables, and what JSON can tell."""
    return key_of(*(_told(part) for part in parts))[:16]


def _told(part: object) -> str | np.ndarray:
    if isinstance(part, np.ndarray):
        return part
    if isinstance(part, pa.Table):
        whole = pa.BufferOutputStream()
        pq.write_table(part.combine_chunks(), whole)  # unlike a table's own bytes, none for nulls
        return np.frombuffer(whole.getvalue(), np.uint8)
    return json.dumps(part)
