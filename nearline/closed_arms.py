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
    """One closed arm: why, and since when."""

    experiment: str
    arm: str
    reason: str
    closed_ts: datetime


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
        try:
            found = _KEPT.validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValidationError as error:
            raise ConfigError(f"{self.path} is damaged: {one_line(error)}; remove it") from error
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read: {error}; remove it") from error
        return {Assigned(each.experiment, each.arm): each for each in found}

    def close(self, arm: Assigned, reason: str, *, now: datetime) -> None:
        """Close an arm; one that is closed keeps its first reason."""
        closed = Closed(experiment=arm.experiment, arm=arm.arm, reason=reason, closed_ts=now)
        with alone("experiments"):
            self._write({arm: closed, **self.read()})

    def reopen(self, arm: Assigned) -> Closed:
        """Open an arm again, and return what closed it. Raises BadInput for one that is open."""
        with alone("experiments"):
            found = dict(self.read())
            if arm not in found:
                raise BadInput(f"arm {arm.arm!r} of experiment {arm.experiment!r} is not closed")
            was = found.pop(arm)
            self._write(found)
        return was

    def _write(self, found: Mapping[Assigned, Closed]) -> None:
        replace_file(self.path, _KEPT.dump_json(list(found.values()), indent=2).decode())
