"""Experiments: which user gets which arm, as one file tells it to serving and to the results.

    home-cap:
      surfaces: [home]
      arms:
        control: {share: 0.5}
        wide: {share: 0.5, release: 20260102T12-nightly-1f3a9c02, settings: {category_cap: 0.9}}

An arm is a release (without one, whichever is active) and settings. A user's arm follows from a
hash of the user and the experiment's salt alone: the same on every worker and every day, and
independent of the arm in any experiment of another salt.
"""

import hashlib
from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, model_validator

from nearline.by_hand import judged, text_of
from nearline.errors import ConfigError
from nearline.faults import Told
from nearline.records import Id
from nearline.settings import settings

CONTROL = "control"
"""The arm that the others are compared with, and that the users of a closed arm get."""

Name = Annotated[
    str,
    StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9][\w.-]*$"),
    Told("must be up to 64 letters, digits, and - _ . after the first"),
]

_POINTS = 2**64


class ArmSettings(BaseModel):
    """What an arm sets otherwise than the settings of the same name.

    `ranker: off` leaves candidates as they are fused; on, a ranker is used as the setting says.
    `promotions: off` leaves promoted items out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    category_cap: float | None = Field(None, gt=0, le=1)
    freshness: float | None = Field(None, ge=0, le=10)
    freshness_hours: float | None = Field(None, gt=0)
    explore: float | None = Field(None, ge=0, le=0.5)
    promotions: bool = True
    ranker: bool = True


class Arm(BaseModel):
    """One way to answer, for this share of the users; as a shadow, of the control's lists."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(gt=0, le=1)
    release: Name | None = None
    settings: ArmSettings = ArmSettings()


class Guardrails(BaseModel):
    """The most that an arm may do; beyond it is closed. None is not judged; no more is the control.

    Each worker judges every `lists` lists: `error_share` counts those that failed, `fallback_share`
    those with a reason for a fallback; `p99_ms` is the time that making one takes. What users did
    is judged once a day: `clicked_loss` and `converted_loss` are the shares of the control's clicks
    and conversions of lists that an arm may lose.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lists: int = Field(500, ge=20)
    error_share: float | None = Field(0.05, ge=0, le=1)
    fallback_share: float | None = Field(None, ge=0, le=1)
    p99_ms: float | None = Field(None, gt=0)
    clicked_loss: float | None = Field(0.2, ge=0, lt=1)
    converted_loss: float | None = Field(0.2, ge=0, lt=1)


class Experiment(BaseModel):
    """Arms, and the surfaces whose lists they answer: all where none is named.

    Another `salt` than the experiment's name deals the users out anew. The `shadow` is asked too,
    and never shown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    arms: dict[Name, Arm]
    surfaces: frozenset[Id] = frozenset()
    salt: str = ""
    guardrails: Guardrails = Guardrails()
    shadow: Arm | None = None

    @model_validator(mode="after")
    def _deals_everybody(self) -> "Experiment":
        if CONTROL not in self.arms:
            raise ValueError(f"arms: one must be called {CONTROL!r}")
        total = sum(arm.share for arm in self.arms.values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"arms: the shares must add up to 1, not {total:g}")
        return self

    def arm_of(self, user_id: str) -> str:
        """The arm of a user under this salt."""
        digest = hashlib.sha256(f"{self.salt}\0{user_id}".encode()).digest()
        names, bounds = self.deal
        return names[bisect_right(bounds, int.from_bytes(digest[:8]) / _POINTS)]

    @cached_property
    def deal(self) -> tuple[list[str], list[float]]:
        """The arms, and where on the line from 0 to 1 each but the last ends."""
        shares = [arm.share for arm in self.arms.values()]
        return [*self.arms], [*accumulate(shares[:-1])]


_FILE = TypeAdapter(dict[Name, Experiment])


class Assigned(NamedTuple):
    """The arm that a user has in an experiment."""

    experiment: str
    arm: str


class Experiments:
    """The experiments of a file, by name. A list is part of one of them at most."""

    def __init__(self, found: dict[str, Experiment]) -> None:
        self.by_name = {
            name: each if each.salt else each.model_copy(update={"salt": name})
            for name, each in found.items()
        }
        everywhere = [name for name, each in found.items() if not each.surfaces]
        places = [(place, name) for name, each in found.items() for place in each.surfaces]
        self._by_surface = dict(places)
        self._everywhere = next(iter(everywhere), None)
        if len(self._by_surface) < len(places) or (everywhere and len(found) > 1):
            raise ConfigError(
                f"experiments {', '.join(found)}: two of them cover the same surface: name "
                "surfaces that differ"
            )

    @classmethod
    def parse(cls, text: str, path: Path) -> "Experiments":
        """Those that the text of a file tells. Raises ConfigError for a wrong one."""
        return cls(judged(text, path, _FILE, empty={}))

    @classmethod
    def open(cls) -> "Experiments":
        """Those of the file that the settings name; none where there is no file.

        Raises ConfigError for a wrong one.
        """
        path = settings().experiments
        return cls.parse(text_of(path), path)

    @property
    def releases(self) -> frozenset[str]:
        """The releases that arms and challengers name."""
        named = (
            way for each in self.by_name.values() for way in (*each.arms.values(), each.shadow)
        )
        return frozenset(way.release for way in named if way and way.release)

    def assigned(self, user_id: str, surface: str | None) -> Assigned | None:
        """The arm of a user on a surface; None where no experiment covers it."""
        name = self._by_surface.get(surface or "", self._everywhere)
        return None if name is None else Assigned(name, self.by_name[name].arm_of(user_id))

    def arm(self, assigned: Assigned) -> Arm:
        """What an arm is."""
        return self.by_name[assigned.experiment].arms[assigned.arm]
