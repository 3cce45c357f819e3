"""When the model's line is to have another night, and whether one was asked for.

What asks is how long ago the night was, which needs no model, and how far its hours have gone from
it, which every fine-tune measures whether or not it goes live. Asking once is enough for as long as
a night may be old: it takes its time, and may be refused.
"""

import logging
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from nearline.errors import ReleaseError
from nearline.releases import ReleaseManifest, ReleaseStore
from nearline.replacing import replace_file
from nearline.settings import settings
from nearline.windows import HOUR

log = logging.getLogger(__name__)


class Asked(BaseModel):
    """The night that was to be replaced, and the end of the data when another was asked for."""

    model_config = ConfigDict(frozen=True)

    night: str
    end: datetime

    @classmethod
    def last(cls) -> "Asked | None":
        """When it was last asked; None if never, or where the file that tells is damaged."""
        file = _file()
        try:
            return cls.model_validate_json(file.read_text()) if file.is_file() else None
        except ValueError as error:
            log.warning("%s is damaged: %s", file.name, error)
            return None

    def keep(self) -> None:
        """Remember it."""
        replace_file(_file(), self.model_dump_json())


def data_end(arrived: datetime) -> datetime:
    """The end of what another night would learn: of what arrived, or what is learned already."""
    active = ReleaseStore.open().active()
    live = _manifest(active) if active else None
    return max(arrived, live.window_end) if live else arrived


def why(version: str | None, until: datetime) -> str | None:
    """Why the active line is to have another night now; None where it is not, or was asked for.

    `version` is what was tuned last, if anything, `until` the end of the data that is there. One of
    a line that a night has replaced meanwhile tells nothing of the active one.
    """
    active = ReleaseStore.open().active()
    if active is None:
        return None
    night = night_of(active)
    tuned = version if version and night_of(version) == night else active
    reason, asked = _aged(active, until) or _far(tuned), Asked.last()
    if reason is None or asked is None or asked.night != night:
        return reason
    return reason if until - asked.end >= settings().drift_hours * HOUR else None


def night_of(version: str) -> str:
    """The night that a release's line began with; the release itself where it cannot be read."""
    manifest = _manifest(version)
    return (manifest.base if manifest else None) or version


def _aged(active: str, until: datetime) -> str | None:
    night, most = _manifest(night_of(active)), settings().drift_hours
    if night is None:
        return f"the night of {active} cannot be read"
    hours = (until - night.window_end) / HOUR
    return f"{night.version} is {hours:g} h old (at most {most} h)" if hours >= most else None


def _far(version: str) -> str | None:
    manifest = _manifest(version)
    if manifest is None or manifest.kind == "nightly":
        return None
    if manifest.drift is None:
        return f"it is not known how far {version} is from its night"
    return f"{version}: {manifest.drift}" if manifest.drift.past else None


def _manifest(version: str) -> ReleaseManifest | None:
    try:
        return ReleaseStore.open().load(version).manifest
    except ReleaseError as error:
        log.warning("%s", error)
        return None


def _file() -> Path:
    return settings().home / "night_asked.json"
