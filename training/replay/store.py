"""What has been played, day by day, so that a run that was killed goes on where it stopped.

One folder a line: `DAY.npz` holds a finished day's ranks and costs, `DAY.line` the line as it then
was. A day counts once its `.npz` is there; it is written last, by one rename.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Day:
    """A finished day of a line.

    `ranks` is int32 (answers, events), the events in the order of time; `learning` and `answering`
    (answers,) are CPU seconds. `model_ages` are microseconds, one for each event.
    """

    ranks: np.ndarray
    model_ages: np.ndarray
    learning: float
    answering: np.ndarray


class Parts:
    """The finished days of one line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def days(self) -> list[int]:
        """Finished days (since 1970), ascending."""
        return sorted(int(path.stem) for path in self.folder.glob("*.npz"))

    def events(self) -> int:
        """Events of the finished days."""
        return sum(self.read(day).ranks.shape[1] for day in self.days())

    def read(self, day: int) -> Day:
        """A finished day."""
        with np.load(self.folder / f"{day}.npz") as kept:
            return Day(
                kept["ranks"], kept["model_ages"], float(kept["learning"]), kept["answering"]
            )

    def write(self, day: int, found: Day, save: Callable[[Path], None]) -> None:
        """Finish a day: the line first, then what it answered; older lines go."""
        save(self.line(day))
        staged = self.folder / f"{day}.staged"
        with staged.open("wb") as file:
            np.savez(file, **vars(found))
        os.replace(staged, self.folder / f"{day}.npz")
        for old in self.folder.glob("*.line"):
            if old != self.line(day):
                old.unlink()

    def line(self, day: int) -> Path:
        """The file of the line as it was when a day ended."""
        return self.folder / f"{day}.line"


def digest(*parts: object) -> str:
    """A short name for what a run depends on."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.tobytes() if isinstance(part, np.ndarray) else json.dumps(part).encode())
    return found.hexdigest()[:16]
