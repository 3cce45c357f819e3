"""Arms that harm are closed: guardrails on what users do with the lists of an arm.

An arm harms when the share of its lists that were clicked, or converted, is less than its guardrail
leaves of the control's, beyond noise. Arms are looked at day after day, and each look is a chance
to be wrong: so an arm is closed only by what chance brings about once in a thousand times (Peto et
al., "Design and analysis of randomized clinical trials requiring prolonged observation of each
patient", Br. J. Cancer 34, 1976).
"""

from collections.abc import Callable, Iterator
from datetime import datetime

from nearline.closed_arms import ClosedArms
from nearline.console import say
from nearline.domains import load_domain
from nearline.errors import BadInput
from nearline.experiments import CONTROL, Assigned, Experiment, Experiments, Guardrails
from nearline.intake.impressions import IMPRESSIONS
from nearline.intake.writer import utc_now
from nearline.lake import EVENTS, Lake
from nearline.locks import alone
from nearline.settings import settings
from nearline.windows import HOUR, Window, hour_floor, without
from pipeline.experiments.intervals import NOT_BY_CHANCE_Z, Interval
from pipeline.experiments.results import ArmResult, compute
from serving.guards import Breach

_HOURS = 7 * 24
"""What became of the lists of so many hours is judged: every day of a week, at a bounded cost."""


@alone("lake")
def close_harmful(end: datetime, *, clock: Callable[[], datetime] = utc_now) -> int:
    """Close the arms that harmed in the week that ends at `end`; returns how many.

    Judged are the longest hours of it whose lists and events are complete; of an experiment with an
    arm that a person opened again, those since then. Raises ConfigError for a wrong file.
    """
    lake, file = Lake.open(), ClosedArms.open()
    week, closed, count = complete_hours(lake, Window.trailing(end, hours=_HOURS)), file.read(), 0
    for name, experiment in Experiments.open().by_name.items():
        window = _since(week, file.reopened(name))
        for arm, breach in harmful(lake, name, experiment, window) if window else ():
            if arm in closed:
                continue
            file.close(arm, f"{breach}, in {window}", now=clock())
            say(f"arm {arm.arm} of experiment {name} is closed: {breach}")
            count += 1
    return count


def complete_hours(lake: Lake, window: Window) -> Window | None:
    """The longest part of `window` whose lists and events are complete."""
    lacking = [
        gap for name in (IMPRESSIONS, EVENTS) for gap in without([window], lake.covered(name))
    ]
    return max(without([window], lacking), key=lambda part: part.end - part.start, default=None)


def harmful(
    lake: Lake, name: str, experiment: Experiment, window: Window
) -> Iterator[tuple[Assigned, Breach]]:
    """The arms of an experiment that harmed in complete hours, and what they broke."""
    try:
        domain = load_domain(settings().domain)
        found = compute(lake, name, window, domain, experiment, z=NOT_BY_CHANCE_Z).arms
    except BadInput:  # no list of these hours was part of it
        return
    arms = {arm.arm: arm for arm in found}
    control = arms.pop(CONTROL, None)
    if control is None:
        return
    for arm in arms.values():
        if breach := _breach(arm, control, experiment.guardrails):
            yield Assigned(name, arm.arm), breach


def _breach(arm: ArmResult, control: ArmResult, bounds: Guardrails) -> Breach | None:
    judged = {
        "clicked_loss": (arm.clicked, control.clicked),
        "converted_loss": (arm.converted, control.converted),
    }
    for guardrail, (own, other) in judged.items():
        most: float | None = getattr(bounds, guardrail)
        if most is not None and lost(own, other, most):
            return Breach(guardrail, 1 - own.value / other.value, most)
    return None


def lost(own: Interval, control: Interval, most: float) -> bool:
    """Whether more than the share `most` of the control's is lost, beyond noise."""
    return own.minus(control.times(1 - most)).high < 0


def _since(week: Window | None, reopened: datetime | None) -> Window | None:
    if week is None or reopened is None:
        return week
    start = max(week.start, hour_floor(reopened) + HOUR)
    return Window(start, week.end) if start < week.end else None
