"""Sizes: how large the model is and how it learns, read from YAML and checked."""

from importlib.resources import files
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nearline.errors import ConfigError
from nearline.faults import one_line
from nearline.settings import SIZES, own_size

EVERY_ITEM = 100_000
"""Items that a step's targets are all compared with, where a size does not tell otherwise."""

DRAWN = 8192
"""Items that are drawn for a step beyond that."""


class Shape(BaseModel):
    """How large the model is; what depends on the data (items, types) is added by training."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    dim: int = Field(ge=4)
    heads: int = Field(ge=1)
    layers: int = Field(ge=1)
    length: int = Field(ge=2, description="longest sequence that the model reads")
    dropout: float = Field(ge=0, lt=1)
    content_buckets: int = Field(ge=16, description="rows that content words are hashed to")
    id_dropout: float = Field(ge=0, lt=1, description="share of items shown by content alone")
    modality_dropout: float = Field(
        ge=0, lt=1, description="share of given vectors that an item is shown without"
    )
    temperature: float = Field(ge=0.02, description="of the softmax; exp(1 / it) must be finite")
    item_codes: int = Field(
        0,
        ge=0,
        description="shared parts that an item's own vector is put together of; 0: a whole one",
    )

    @model_validator(mode="after")
    def _parts_divide(self) -> "Shape":
        for name, parts in (("heads", self.heads), ("item_codes", self.item_codes)):
            if parts and self.dim % parts:
                raise ValueError(f"dim {self.dim} is not a multiple of {name} {parts}")
        return self


class Learning(BaseModel):
    """How the model learns: by night from nothing, by the hour from a release."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: int = Field(ge=1, description="most passes over the events")
    patience: int = Field(ge=1, description="passes without progress before it stops")
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    neighbours: int = Field(
        ge=0, description="most items, of those that came with an item, that lend it their vectors"
    )
    batch_tokens: int = Field(ge=16, description="events read in one step, padding included")
    negatives: int | None = Field(
        None,
        ge=0,
        description="items that a step's targets are compared with; 0: every item; without it "
        f"every item up to {EVERY_ITEM:,}, {DRAWN:,} beyond",
    )
    warm_learning_rate: float = Field(gt=0)
    warm_steps: int = Field(ge=1, description="most steps of a warm start")
    replay_ratio: float = Field(ge=0, description="older events for each new one in a warm start")
    distillation: float = Field(
        ge=0, description="weight of the parent's answers to the older events in a warm start"
    )

    def draws(self, items: int) -> int:
        """Items that are drawn for a step where there are so many; 0: every item is compared."""
        if self.negatives is not None:
            return self.negatives
        return DRAWN if items > EVERY_ITEM else 0


class Recipe(BaseModel):
    """One size."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Shape
    learning: Learning

    @model_validator(mode="after")
    def _codes_have_neighbours(self) -> "Recipe":
        if self.model.item_codes and not self.learning.neighbours:
            raise ValueError("item_codes are found by neighbours: let there be some")
        return self

    def flat(self) -> dict[str, float]:
        """Every number of it that is told, by its name."""
        return {
            **self.model.model_dump(exclude_none=True),
            **self.learning.model_dump(exclude_none=True),
        }


def load_recipe(size: str) -> Recipe:
    """The recipe of a size, or of a YAML file, which may tell only how it differs from a size.

    Such a file says which size it is `like`. Raises ConfigError when there is none or it is wrong.
    """
    own = own_size(size)
    if own is not None:
        try:
            return parse_recipe(own.read_text(), name=own.name)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"model size {own} cannot be read as text: {error}") from error
    if size.endswith((".yaml", ".yml")):
        raise ConfigError(f"model size {size}: there is no such file")
    if size not in SIZES:
        raise ConfigError(
            f"no model size {size!r}: training/sizes has {', '.join(SIZES)}; "
            "a size of your own is a path that ends in .yaml"
        )
    source = files("training").joinpath("sizes", f"{size}.yaml")
    return parse_recipe(source.read_text(), name=source.name)


def parse_recipe(text: str, *, name: str) -> Recipe:
    """A recipe from YAML. Raises ConfigError that names the key and the value."""
    try:
        told = yaml.safe_load(text)
        if isinstance(told, dict) and "like" in told:
            like = told.pop("like")
            if like not in SIZES:
                raise ConfigError(f"model size {name}: `like` is {like!r}: use {', '.join(SIZES)}")
            told = _completed(told, load_recipe(like))
        return Recipe.model_validate(told)
    except ValidationError as error:
        raise ConfigError(f"model size {name}: {one_line(error)}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"model size {name}: {error}") from error


def _completed(told: dict[str, Any], like: Recipe) -> dict[str, Any]:
    """What a file tells, and for the rest what another recipe has; a part that is no mapping stays
    as it is, to be refused.
    """
    for part, whole in like.model_dump().items():
        own = told.get(part, {})
        told[part] = whole | own if isinstance(own, dict) else own
    return told
