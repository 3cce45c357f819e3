"""The command as a person finds it."""

from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from nearline.cli import STORY, build

COMMANDS = sorted(entry.name for entry in entry_points(group="nearline.commands"))
README = Path(__file__).parents[2] / "README.md"


def test_every_command_is_part_of_the_story() -> None:
    assert set(COMMANDS) == set(STORY)


def commands(group: TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


def test_every_command_shows_an_example_of_itself() -> None:
    for path in commands(typer.main.get_command(build())):
        shown = CliRunner().invoke(build(path[:1]), [*path, "--help"])
        assert shown.exit_code == 0
        _usage, *examples = " ".join(shown.output.split()).split("nearline " + " ".join(path))
        assert len(examples) >= 2, f"{path} has a usage, but no example that can be run"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme(name: str) -> None:
    assert f"nearline {name}" in README.read_text()


def test_help_tells_the_story_in_its_order() -> None:
    shown = CliRunner().invoke(build(), ["--help"]).output.split("Commands")[1]
    found = [name for line in shown.splitlines() for name in STORY if line.startswith(f"│ {name} ")]
    assert found == list(STORY)
