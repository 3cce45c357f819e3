"""Domain files: which event types a site has, what they are worth, and how they lead on."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from nearline.by_hand import judged
from nearline.errors import ConfigError
from nearline.schema import LARGEST_VALUE

BUILT_IN = ("commerce", "entertainment", "social")


class ValueRange(BaseModel):
    """What an event's `value` may be; `unit` says what it counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: float = Field(ge=-LARGEST_VALUE)
    max: float = Field(le=LARGEST_VALUE)
    unit: str
    required: bool = False


Hides = Literal["always", "recently", "never"]
"""Whether a user who did this with an item is shown the item again: not in the next year (of the
newest TAKEN_ITEMS such items), not while the event is in the user's sequence, or at once."""


class EventType(BaseModel):
    """One kind of event. `weight` is its worth as a sign of interest; 0 tells nothing.

    `hides` says whether its item is shown to the user again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    positive: bool
    weight: float = Field(ge=0)
    requires_item: bool = True
    hides: Hides = "recently"
    value: ValueRange | None = None

    @model_validator(mode="after")
    def _hides_what_is_remembered(self) -> "EventType":
        if self.hides == "always" and not self.weight:
            raise ValueError(
                "hides: always needs a weight above 0: other events are not remembered"
            )
        return self


class Domain(BaseModel):
    """A site's vocabulary of behaviour. `funnel` lists event types from first touch to goal."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    event_types: dict[str, EventType] = Field(min_length=1)
    funnel: list[str]

    @model_validator(mode="after")
    def _funnel_is_known(self) -> "Domain":
        unknown = [step for step in self.funnel if step not in self.event_types]
        if unknown:
            raise ValueError(f"funnel names unknown event types {unknown}")
        return self

    @property
    def positive(self) -> list[str]:
        """The event types that the model learns to predict, in the file's order."""
        return [name for name, kind in self.event_types.items() if kind.positive]

    @property
    def telling(self) -> list[str]:
        """The event types that belong in a user's sequence: those with a weight."""
        return [name for name, kind in self.event_types.items() if kind.weight > 0]

    @property
    def taking(self) -> list[str]:
        """The event types that hide their item always."""
        return [name for name, kind in self.event_types.items() if kind.hides == "always"]

    @property
    def showing(self) -> list[str]:
        """The event types after which an item is shown again at once."""
        return [name for name, kind in self.event_types.items() if kind.hides == "never"]

    @property
    def touch(self) -> str:
        """What an event without a type is taken for: the funnel's first sign of interest."""
        steps = [*self.funnel, *self.event_types]
        return next((step for step in steps if self.event_types[step].positive), steps[0])


_FILE = TypeAdapter(Domain)


@cache
def load_domain(name_or_path: str) -> Domain:
    """The built-in domain of that name, or the domain file at that path.

    Raises ConfigError when there is none or its content is wrong.
    """
    if name_or_path in BUILT_IN:
        text = files("nearline").joinpath("domains", f"{name_or_path}.yaml").read_text()
    elif Path(name_or_path).is_file():
        text = Path(name_or_path).read_text()
    else:
        raise ConfigError(
            f"no domain {name_or_path!r}: use {', '.join(BUILT_IN)}, or the path of a YAML file"
        )
    return judged(text, f"domain file {name_or_path}", _FILE, empty=None)
