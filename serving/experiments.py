"""The experiments that run now, and what answers a user by them: nearline/experiments.py."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from nearline.errors import ConfigError
from nearline.experiments import CONTROL, Arm, ArmSettings, Assigned, Experiments
from nearline.settings import settings
from serving.active import ActiveRelease
from serving.answers import Asked
from serving.metrics import Metrics
from serving.release import Pinned
from serving.watched import version_of

log = logging.getLogger(__name__)

_AS_SET = ArmSettings()


@dataclass(frozen=True)
class Choice:
    """What answers a user: a release with the catalogue, an arm's settings, and the arm if any."""

    pinned: Pinned
    settings: ArmSettings = _AS_SET
    assigned: Assigned | None = None

    def applied(self, asked: Asked) -> Asked:
        """A question under the arm's settings."""
        return replace(asked, category_cap=self.settings.category_cap)


class Trials:
    """Follows the file of experiments, and chooses by it. Safe to use from many threads.

    A changed file counts once the releases that it names are loaded; a wrong one is logged, counted
    and changes nothing. An arm whose release cannot be loaded is no arm: its users get the control,
    and are not counted as part of the experiment.
    """

    def __init__(self, path: Path, active: ActiveRelease, metrics: Metrics) -> None:
        """Raises ConfigError for a wrong file."""
        self._path, self._active, self._metrics = path, active, metrics
        self._seen = version_of(path)
        self._experiments = Experiments.read(path)

    @classmethod
    def open(cls, active: ActiveRelease, metrics: Metrics) -> "Trials":
        """The experiments of the file that the settings name."""
        return cls(settings().experiments, active, metrics)

    def refresh(self) -> None:
        """Take over what has changed: the file, and the releases. One thread calls this."""
        found = self._found()
        self._active.refresh(beside=found.releases)
        self._experiments = found

    def choose(self, user_id: str, surface: str | None, active: Pinned) -> Choice:
        """What answers a user on a surface; without an experiment, the active release."""
        experiments = self._experiments
        assigned = experiments.assigned(user_id, surface)
        if assigned is None:
            return Choice(active)
        arm = experiments.arm(assigned)
        pinned = self._pinned(arm, active)
        if pinned is not None:
            return Choice(pinned, arm.settings, assigned)
        control = experiments.arm(Assigned(assigned.experiment, CONTROL))
        return Choice(self._pinned(control, active) or active, control.settings)

    def _pinned(self, arm: Arm, active: Pinned) -> Pinned | None:
        return active if arm.release is None else self._active.beside(arm.release)

    def _found(self) -> Experiments:
        """The experiments as the file has them now; a wrong file is told of once."""
        version = version_of(self._path)
        if version == self._seen:
            return self._experiments
        self._seen = version
        try:
            found = Experiments.read(self._path)
        except ConfigError:
            log.exception("the experiments stay as they are")
            self._metrics.refresh_failures.labels("experiments").inc()
            return self._experiments
        log.info("experiments: %s", ", ".join(found.by_name) or "none")
        return found
