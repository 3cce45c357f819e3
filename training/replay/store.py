"""What has been played, day by day, so that a run that was killed goes on where it stopped.

One folder a line: `DAY.npz` holds a finished day's ranks and costs, `DAY.line` the line as it then
was. A day counts once its `.npz` is there; it is written last, by one rename.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.checkpoint import key_of


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
        self._events: dict[int, int] = {}

    def days(self) -> list[int]:
        """Finished days (since 1970), ascending."""
        return sorted(int(path.stem) for path in self.folder.glob("*.npz"))

    def events(self) -> int:
        """Events of the finished days; each day is read once, however often this is asked."""
        for day in set(self.days()) - self._events.keys():
            self._events[day] = self.read(day).ranks.shape[1]
        return sum(self._events.values())

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
    told = (part if isinstance(part, np.ndarray) else json.dumps(part) for part in parts)
    return key_of(*told)[:16]
