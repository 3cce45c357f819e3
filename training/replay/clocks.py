"""Which clocks tick. A policy is `STATE/MODEL`, `STATE/MODEL/ENCODER`, or a baseline.

State: `frozen` (as it was when the replay began), `nightly`, `hourly`, `live` (at each event).
Model: `never`; `hourly`, `nightly` or `weekly`, learned again from everything; `hourly-HOW` or
`daily-HOW`, tuned on what just happened; or both, as in `weekly+hourly-replay`. HOW is `plain`,
`replay` (with older events) or `distil` (with older events and the parent's answers to them).
Encoder: `full` or `compressed`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from nearline.errors import BadInput
from training.baselines import DAY_US
from training.replay.timeline import HOUR_US

State = Literal["frozen", "nightly", "hourly", "live"]
Encoder = Literal["full", "compressed"]
How = Literal["plain", "replay", "distil"]

STATES: tuple[str, ...] = get_args(State)
ENCODERS: tuple[str, ...] = get_args(Encoder)
HOWS: tuple[str, ...] = get_args(How)

RETRAINED = {"hourly": HOUR_US, "nightly": DAY_US, "weekly": 7 * DAY_US}
TUNED = {"hourly": HOUR_US, "daily": DAY_US}
_CADENCES = {"hour": "hourly", "day": "daily"}

BASELINES = ("popular", "popular_30d", "popular_7d", "popular_1d", "item_to_item")


@dataclass(frozen=True)
class Clock:
    """What moves a model: how often (microseconds) it is learned again and tuned, if ever."""

    name: str
    retrained: int | None = None
    tuned: int | None = None
    how: How = "plain"

    @classmethod
    def parse(cls, text: str, *, step: str) -> "Clock":
        """A clock from its name; a bare HOW is tuned at every `step` (hour or day).

        Raises BadInput when there is no such clock.
        """
        if text == "never":
            return cls(text)
        night, plus, tune = text.rpartition("+")
        if not plus and text in RETRAINED:
            return cls(text, retrained=RETRAINED[text])
        cadence, dash, how = tune.rpartition("-")
        if not dash:
            cadence = _CADENCES[step]
        if (night and night not in RETRAINED) or cadence not in TUNED or how not in HOWS:
            raise BadInput(
                f"no model clock {text!r}: use never, {', '.join(RETRAINED)}, hourly-HOW or "
                f"daily-HOW (HOW one of {', '.join(HOWS)}), or both, as in nightly+hourly-replay"
            )
        name = f"{night}{plus}{cadence}-{how}"
        return cls(name, RETRAINED.get(night), TUNED[cadence], how)  # type: ignore[arg-type]

    def ticks(self, start: int, end: int) -> np.ndarray:
        """The moments in (start, end) at which something is learned, ascending.

        Nights are midnights; weeks are counted from the first of them.
        """
        found = [np.zeros(0, dtype=np.int64)]
        if self.retrained:
            found.append(np.arange(self._first_night(start), end, self.retrained))
        if self.tuned:
            found.append(np.arange(_after(start, self.tuned), end, self.tuned))
        return np.unique(np.concatenate(found))

    def retrains(self, moment: int, start: int) -> bool:
        """Whether the whole model is learned again at a tick."""
        if self.retrained is None:
            return False
        since = moment - self._first_night(start)
        return since >= 0 and since % self.retrained == 0

    def _first_night(self, start: int) -> int:
        assert self.retrained is not None
        return _after(start, min(self.retrained, DAY_US))


def _after(moment: int, span: int) -> int:
    """The first multiple of a span after a moment."""
    return (moment // span + 1) * span


@dataclass(frozen=True)
class Policy:
    """One way to run a recommender; `clock` is a baseline's name for a baseline."""

    state: str
    clock: Clock
    encoder: str

    @property
    def name(self) -> str:
        """As it is asked for."""
        if self.clock.name in BASELINES:
            return self.clock.name
        short = f"{self.state}/{self.clock.name}"
        return short if self.encoder == "full" else f"{short}/{self.encoder}"


def parse_policies(text: str, *, step: str) -> list[Policy]:
    """Policies from names with commas between them. Raises BadInput for a name that is none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise BadInput("no policy is named: give --policies, as in live/never,live/hourly-replay")
    return list(dict.fromkeys(_policy(name, step) for name in names))


def _policy(name: str, step: str) -> Policy:
    if name in BASELINES:
        span = DAY_US if name == "item_to_item" else TUNED[_CADENCES[step]]
        return Policy("live", Clock(name, tuned=span), "full")
    state, *rest = name.split("/")
    if (
        state not in STATES
        or len(rest) not in (1, 2)
        or (len(rest) == 2 and rest[1] not in ENCODERS)
    ):
        raise BadInput(
            f"no policy {name!r}: it is STATE/MODEL or STATE/MODEL/ENCODER, STATE one of "
            f"{', '.join(STATES)}, ENCODER one of {', '.join(ENCODERS)}; "
            f"or a baseline: {', '.join(BASELINES)}"
        )
    return Policy(state, Clock.parse(rest[0], step=step), rest[1] if len(rest) == 2 else "full")


def encoded_at(state: str, times: np.ndarray, start: int) -> np.ndarray:
    """When the state that answers at `times` was made: it knows the events before that."""
    spans = {"nightly": DAY_US, "hourly": HOUR_US}
    if state == "frozen":
        return np.full(len(times), start)
    if state == "live":
        return times
    return np.maximum(times // spans[state] * spans[state], start)


def clocks_of(policies: Sequence[Policy]) -> dict[Clock, list[tuple[str, str]]]:
    """Each model clock with the states and encoders that are asked of it, the cheap ones first."""
    wanted: dict[Clock, list[tuple[str, str]]] = {}
    for policy in policies:
        wanted.setdefault(policy.clock, []).append((policy.state, policy.encoder))
    return dict(sorted(wanted.items(), key=lambda item: _cost(item[0])))


def _cost(clock: Clock) -> float:
    """Ticks a week, a whole learning counted for 700, as measured; counting is cheap."""
    if clock.name in BASELINES:
        return 0
    week = 7 * DAY_US
    return (week / clock.tuned if clock.tuned else 0) + (
        700 * week / clock.retrained if clock.retrained else 0
    )
