"""Files that a person writes, such as that of experiments: YAML that a model judges."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from nearline.errors import ConfigError
from nearline.faults import one_line

T = TypeVar("T")


def text_of(path: Path) -> str:
    """What a file holds; nothing where there is none. Raises ConfigError for one of no text."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def judged(text: str, file: Path | str, shape: TypeAdapter[T], *, empty: T | None) -> T:
    """What the YAML of a file tells. Raises ConfigError that names `file` and what is wrong."""
    try:
        told = yaml.safe_load(text)
        return shape.validate_python(empty if told is None else told)
    except ValidationError as error:
        raise ConfigError(f"{file}: {one_line(error)}") from error
    except (yaml.YAMLError, ValueError) as error:  # a ValueError: a date that no calendar has
        raise ConfigError(f"{file}: {error}") from error
