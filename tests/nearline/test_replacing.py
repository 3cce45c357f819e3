"""A file that was replaced stays replaced, whatever happens to the machine."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nearline.replacing import replace_file, replacing


def replaced_by_text(path: Path) -> None:
    replace_file(path, "new")


def replaced_by_writing(path: Path) -> None:
    with replacing(path) as staged:
        staged.write_text("new")


@pytest.mark.parametrize("replace", [replaced_by_text, replaced_by_writing])
def test_both_the_content_and_the_name_are_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: Callable[[Path], None]
) -> None:
    told: list[str] = []
    sync, rename = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        told.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    def renamed(old: Path, new: Path) -> None:
        told.append(f"to {new.name}")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    path = tmp_path / "file"
    path.write_text("old")
    replace(path)
    assert path.read_text() == "new"
    assert told == [".file", "to file", tmp_path.name]
