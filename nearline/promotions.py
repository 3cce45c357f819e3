"""Promotions: items that a site puts into lists at places of its choice, as one file tells it.

- {item_id: "50", place: 2, from: 2026-01-02T00:00Z, until: 2026-01-09T00:00Z, surfaces: [home]}
- {item_id: "181", place: 1, from: 2026-01-02T00:00Z, until: 2026-02-01T00:00Z,
   categories: [noir]}
"""

from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from nearline.by_hand import judged, text_of
from nearline.records import Id, as_utc
from nearline.settings import settings

MOST_PROMOTIONS = 200
"""In one file: each list looks through them all."""

Time = Annotated[datetime, AfterValidator(as_utc)]


class Promotion(BaseModel):
    """An item's place in lists, counted from 1, `from` one time (`since`) `until` another.

    Without `surfaces` on every surface; with `categories` only in lists that are asked for one of
    these.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    item_id: Id
    place: int = Field(ge=1)
    since: Time = Field(alias="from")
    until: Time
    surfaces: frozenset[Id] = frozenset()
    categories: frozenset[Id] = frozenset()

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> "Promotion":
        if self.until <= self.since:
            raise ValueError(f"until {self.until:%Y-%m-%dT%H:%MZ} is not later than from")
        return self

    def fits(self, surface: str | None, categories: Collection[str]) -> bool:
        """Whether it is meant for a list of this surface that is asked for these categories."""
        return (not self.surfaces or surface in self.surfaces) and (
            not self.categories or not self.categories.isdisjoint(categories)
        )


_FILE = TypeAdapter(Annotated[tuple[Promotion, ...], Field(max_length=MOST_PROMOTIONS)])


def parse_promotions(text: str, path: Path) -> tuple[Promotion, ...]:
    """Those that the text of a file tells, by their places. Raises ConfigError for a wrong one."""
    found = judged(text, path, _FILE, empty=())
    return tuple(sorted(found, key=lambda each: each.place))


def open_promotions() -> tuple[Promotion, ...]:
    """Those of the file that the settings name; none where there is no file.

    Raises ConfigError for a wrong one.
    """
    path = settings().promotions
    return parse_promotions(text_of(path), path)
