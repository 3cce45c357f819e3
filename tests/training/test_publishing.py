from pathlib import Path

import pytest

from training import publishing
from training.publishing import code_version


@pytest.mark.parametrize(
    ("name", "counts"),
    [("one/a.py", True), ("one/sizes/b.yaml", True), ("one/c", False), ("other/d.py", True)],
)
def test_the_version_of_the_code_goes_by_code_and_sizes(
    name: str, counts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    monkeypatch.setattr(publishing, "_PACKAGES", (one, other))
    (one / "sizes").mkdir(parents=True)
    other.mkdir()
    for each in ("one/a.py", "one/sizes/b.yaml", "one/c", "other/d.py"):
        (tmp_path / each).write_text("before")
    before = code_version()
    assert code_version() == before
    (tmp_path / name).write_text("after")
    assert (code_version() != before) is counts
