"""What a model finds wrong, in words for people: nothing of the library that found it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema

_MOST = 3
"""Of many faults, so many are told."""


@dataclass(frozen=True)
class Told:
    """Beside the constraints of a type: whatever of them a value breaks is told by these words."""

    words: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.custom_error_schema(
            handler(source), custom_error_type="form", custom_error_message=self.words
        )


def words(found: Mapping[str, Any]) -> str:
    """What one error of a model says."""
    if found["type"] == "value_error":
        return str(found["ctx"]["error"])
    if found["type"] == "extra_forbidden":
        return "is not known here"
    return str(found["msg"])


def one_line(error: ValidationError, *, whole: str = "") -> str:
    """The first faults with their places, as one line that UTF-8 can hold.

    A fault of the `whole` has no place; it is told by this name, or by none.
    """
    found = error.errors(include_url=False)[:_MOST]
    places = [".".join(map(str, each["loc"])) or whole for each in found]
    told = "; ".join(
        f"{place}: {words(each)}" if place else words(each)
        for place, each in zip(places, found, strict=True)
    )
    return told.encode("utf-8", "backslashreplace").decode("utf-8")
