"""The arms of experiments that were closed, in one file, until a person opens them again."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from nearline.errors import BadInput, ConfigError
from nearline.experiments import Assigned
from nearline.faults import one_line
from nearline.locks import alone
from nearline.replacing import replace_file
from nearline.settings import settings


class Closed(BaseModel):
    """One closed arm: why, and since when; and since when it is open again, if it is."""

    experiment: str
    arm: str
    reason: str
    closed_ts: datetime
    reopened_ts: datetime | None = None

    @property
    def assigned(self) -> Assigned:
        """The arm."""
        return Assigned(self.experiment, self.arm)


_KEPT = TypeAdapter(list[Closed])


class ClosedArms:
    """The file. Any process of this machine may close an arm; all follow it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls) -> "ClosedArms":
        """That of the settings: HOME/closed_arms.json."""
        return cls(settings().home / "closed_arms.json")

    def read(self) -> Mapping[Assigned, Closed]:
        """The arms that are closed. Raises ConfigError for a file that cannot be read."""
        return {each.assigned: each for each in self._kept() if each.reopened_ts is None}

    def reopened(self, experiment: str) -> datetime | None:
        """When an arm of an experiment was opened again last; None where none was."""
        times = [each.reopened_ts for each in self._kept() if each.experiment == experiment]
        return max((ts for ts in times if ts), default=None)

    def _kept(self) -> list[Closed]:
        try:
            return _KEPT.validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return []
        except ValidationError as error:
            raise ConfigError(f"{self.path} is damaged: {one_line(error)}; remove it") from error
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read: {error}; remove it") from error

    def close(self, arm: Assigned, reason: str, *, now: datetime) -> None:
        """Close an arm; one that is closed keeps its first reason."""
        closed = Closed(experiment=arm.experiment, arm=arm.arm, reason=reason, closed_ts=now)
        with alone("experiments"):
            if arm not in self.read():
                self._replace(closed)

    def reopen(self, arm: Assigned, *, now: datetime) -> Closed:
        """Open an arm again, and return what closed it. Raises BadInput for one that is open."""
        with alone("experiments"):
            was = self.read().get(arm)
            if was is None:
                raise BadInput(f"arm {arm.arm!r} of experiment {arm.experiment!r} is not closed")
            self._replace(was.model_copy(update={"reopened_ts": now}))
        return was

    def _replace(self, one: Closed) -> None:
        """Write the file with `one` in place of what it had of the same arm."""
        kept = [each for each in self._kept() if each.assigned != one.assigned]
        replace_file(self.path, _KEPT.dump_json([*kept, one], indent=2).decode())
