"""Data flows one way: who may import whom."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("nearline", "spark_jobs", "training", "serving", "pipeline", "feature_repo", "dags")
MAY_IMPORT = {
    "nearline": {"nearline"},
    "spark_jobs": {"nearline", "spark_jobs"},
    "feature_repo": {"nearline", "spark_jobs", "feature_repo"},
    "training": {"nearline", "training", "feature_repo"},
    "serving": {"nearline", "serving", "feature_repo"},
    "pipeline": set(ROOMS) - {"dags"},
    "dags": set(ROOMS),
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_lies_before_it(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        found = {name.split(".")[0] for name in imports(path)} & set(ROOMS)
        assert found <= MAY_IMPORT[room], f"{path.relative_to(ROOT)} imports {found}"
