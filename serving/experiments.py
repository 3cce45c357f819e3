"""The experiments that run now, and what answers a user by them: nearline/experiments.py."""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from threading import Lock

from nearline.closed_arms import ClosedArms
from nearline.errors import ConfigError
from nearline.experiments import CONTROL, Arm, ArmSettings, Assigned, Experiments
from nearline.settings import settings
from serving.active import ActiveRelease
from serving.answers import Answer, Arrangement, Asked
from serving.guards import Breach, Guards, Outcome
from serving.last_good import Watched
from serving.logs import trace
from serving.metrics import Metrics
from serving.release import Pinned
from serving.watched import version_of

log = logging.getLogger(__name__)

_AS_SET = ArmSettings()
_NUMBERS = ("category_cap", "freshness", "freshness_hours", "explore")


@dataclass(frozen=True)
class Choice:
    """What answers a user: a release with the catalogue, an arm's settings, and the arm if any."""

    pinned: Pinned
    settings: ArmSettings = _AS_SET
    assigned: Assigned | None = None

    def applied(self, asked: Asked) -> Asked:
        """A question under the arm's settings; without any, the recommender's own hold."""
        own = self.settings
        if own is _AS_SET:
            return asked
        return replace(asked, arrangement=arrangement(own), ranked=own.ranker)


def arrangement(own: ArmSettings = _AS_SET) -> Arrangement:
    """How lists are arranged by the settings, and by what an arm sets in their stead."""
    config = settings()

    def told(name: str) -> float:
        value: float | None = getattr(own, name)
        return getattr(config, name) if value is None else value

    numbers = {name: told(name) for name in _NUMBERS}
    return Arrangement(**numbers, promotions=own.promotions)


class Trials:
    """Follows the file of experiments, and chooses by it. Safe to use from many threads.

    A changed file counts once the releases that it names are loaded; see Watched for a wrong one.
    An arm that is closed, or whose release cannot be loaded, is no arm: its users get the control,
    and are not counted as part of the experiment.
    """

    def __init__(
        self, path: Path, closed: ClosedArms, active: ActiveRelease, metrics: Metrics
    ) -> None:
        """Without experiments until the first `refresh`."""
        self._file = Watched("experiments", path, Experiments.parse, metrics)
        self._closed_file, self._active, self._metrics = closed, active, metrics
        self._seen_closed: object = None
        self._experiments = Experiments({})
        self._closed: frozenset[Assigned] = frozenset()
        self._closing = Lock()
        self._guards = Guards()

    @classmethod
    def open(cls, active: ActiveRelease, metrics: Metrics) -> "Trials":
        """The experiments of the file that the settings name."""
        return cls(settings().experiments, ClosedArms.open(), active, metrics)

    def refresh(self) -> None:
        """Take over what has changed: the files, and the releases. One thread calls this."""
        self._file.refresh()
        self._follow_closed()
        self._active.refresh(beside=self._file.told.releases)
        self._experiments = self._file.told

    def choose(self, user_id: str, surface: str | None, active: Pinned) -> Choice:
        """What answers a user on a surface; without an experiment, the active release."""
        experiments = self._experiments
        assigned = experiments.assigned(user_id, surface)
        if assigned is None:
            return Choice(active)
        arm = experiments.arm(assigned)
        pinned = None if assigned in self._closed else self._pinned(arm, active)
        if pinned is not None:
            return Choice(pinned, arm.settings, assigned)
        return self._control(assigned, active)

    def answer(self, choice: Choice, ask: Callable[[Choice], Answer], now: datetime) -> Answer:
        """What a choice answers, judged; where its arm fails, what the control answers."""
        if choice.assigned is None:
            return ask(choice)
        began = time.perf_counter()
        try:
            answer = ask(choice)
        except Exception as error:
            if choice.assigned.arm == CONTROL:
                raise
            experiment, arm = choice.assigned
            log.error("arm %s of experiment %s failed:\n%s", arm, experiment, trace(error))
            self._heard(choice.assigned, Outcome(time.perf_counter() - began, failed=True), now)
            return ask(self._control(choice.assigned, self._active.pin()))
        fallback = answer.reason is not None
        self._heard(choice.assigned, Outcome(time.perf_counter() - began, fallback), now)
        return answer

    def shadow(self, choice: Choice) -> Choice | None:
        """What is to be asked too for a list of the control, for the share that was set."""
        if choice.assigned is None or choice.assigned.arm != CONTROL:
            return None
        experiment = self._experiments.by_name.get(choice.assigned.experiment)
        shadow = experiment.shadow if experiment else None
        if shadow is None or random.random() >= shadow.share:
            return None
        pinned = self._pinned(shadow, self._active.pin())
        return Choice(pinned, shadow.settings) if pinned else None

    def _heard(self, arm: Assigned, outcome: Outcome, now: datetime) -> None:
        told = "failed" if outcome.failed else "fallback" if outcome.fallback else "answered"
        self._metrics.arm_lists.labels(*arm, told).inc()
        self._metrics.arm_seconds.labels(*arm).observe(outcome.seconds)
        experiment = self._experiments.by_name.get(arm.experiment)
        if experiment is None or arm.arm == CONTROL:
            return
        breach = self._guards.hear(arm, experiment.guardrails, outcome)
        if breach is not None:
            self._close(arm, breach, now)

    def _close(self, arm: Assigned, breach: Breach, now: datetime) -> None:
        """Close an arm: here at once, elsewhere when the others look."""
        with self._closing:
            if arm in self._closed:
                return
            self._closed |= {arm}
        self._metrics.arms_closed.labels(*arm, breach.guardrail).inc()
        log.error("arm %s of experiment %s is closed: %s", arm.arm, arm.experiment, breach)
        try:
            self._closed_file.close(arm, str(breach), now=now)
        except (OSError, ConfigError):
            log.exception("only this worker knows that the arm is closed")

    def _control(self, assigned: Assigned, active: Pinned) -> Choice:
        """What the control answers, as no part of the experiment."""
        experiment = self._experiments.by_name.get(assigned.experiment)
        if experiment is None:  # it has ended meanwhile
            return Choice(active)
        control = experiment.arms[CONTROL]
        return Choice(self._pinned(control, active) or active, control.settings)

    def _pinned(self, arm: Arm, active: Pinned) -> Pinned | None:
        return active if arm.release is None else self._active.beside(arm.release)

    def _follow_closed(self) -> None:
        version = version_of(self._closed_file.path)
        if version == self._seen_closed:
            return
        self._seen_closed = version
        try:
            with self._closing:
                self._closed = frozenset(self._closed_file.read())
        except ConfigError:
            log.exception("the closed arms stay as they are")
            self._metrics.refresh_failures.labels("experiments").inc()
