"""What `pip install` of the repository brings: the client, typed, and no more than it declares."""

import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from shutil import copy, copytree, ignore_patterns
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

CLIENT = """
import httpx
from serving.client import AsyncRecommendationClient, RecommendationClient

answer = httpx.Response(200, json={"status": "ready", "release": "r"})
wire = httpx.MockTransport(lambda request: answer)
with RecommendationClient(base_url="http://x", transport=wire) as client:
    assert client.health().release == "r"
"""
NO_COMMAND = """
from nearline.start import main

try:
    main()
except SystemExit as stopped:
    assert "typer is not installed" in stopped.code and "nearline[lookup]" in stopped.code
else:
    raise AssertionError
"""
LOOKUP = """
from nearline.cli import build

build(["lookup"])(["lookup", "user", "--help"])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's wheel, built as pip builds it, and unpacked."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for room in ("nearline", "serving"):
        copytree(ROOT / room, source / room, ignore=ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        copy(ROOT / file, source)
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(built)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (file,) = built.glob("*.whl")
    with ZipFile(file) as packed:
        packed.extractall(built / "there")
    return built / "there"


def required(requirements: Iterable[str]) -> Iterator[Distribution]:
    """The distributions that are required, with what each requires in turn."""
    for each in map(Requirement, requirements):
        if each.marker is None or each.marker.evaluate({"extra": ""}):
            yield distribution(each.name)
            yield from required(distribution(each.name).requires or ())


def install(requirements: Iterable[str], folder: Path) -> None:
    """Links to what is required, as if nothing else was installed."""
    for found in required(requirements):
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            link = folder / top
            if not link.exists():
                link.symlink_to(str(found.locate_file(top)))


@pytest.mark.parametrize(
    ("requirements", "program"),
    [
        (PROJECT["dependencies"], CLIENT),
        (PROJECT["dependencies"], NO_COMMAND),
        ([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["lookup"]], LOOKUP),
    ],
)
def test_what_is_declared_is_enough(
    wheel: Path, tmp_path: Path, requirements: list[str], program: str
) -> None:
    install(requirements, tmp_path)
    assert not (tmp_path / "numpy").exists()
    told = f"import sys; sys.path += {[str(wheel), str(tmp_path)]}\n{program}"
    # -I and -S: neither this environment's packages nor the working tree can be imported.
    alone = [sys.executable, "-I", "-S", "-c", told]
    run = subprocess.run(alone, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_its_types_are_told(wheel: Path) -> None:
    assert {path.parent.name for path in wheel.glob("*/py.typed")} == {"nearline", "serving"}
