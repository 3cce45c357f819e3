from pathlib import Path

import pytest

from training import publishing
from training.publishing import code_version


@pytest.mark.parametrize(("name", "counts"), [("a.py", True), ("sizes/b.yaml", True), ("c", False)])
def test_the_version_of_the_code_goes_by_code_and_sizes(
    name: str, counts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "__file__", str(tmp_path / "publishing.py"))
    (tmp_path / "sizes").mkdir()
    for each in ("a.py", "sizes/b.yaml", "c"):
        (tmp_path / each).write_text("before")
    before = code_version()
    assert code_version() == before
    (tmp_path / name).write_text("after")
    assert (code_version() != before) is counts
