"""A file that is read while it changes: the old one or the new one, never a part."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def replace_file(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Replace a file by one rename, on disk on return. For one writer at a time.

    `mode` is what the umask leaves of it.
    """
    staged = path.with_name(f".{path.name}")
    file = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(file, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    _take_the_place(staged, path)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to: its file takes the place of `path` by one rename, on disk on return.

    For one writer at a time. The old file stays where the writing ends early.
    """
    staged = path.with_name(f".{path.name}")
    yield staged
    to_disk(staged)
    _take_the_place(staged, path)


def _take_the_place(staged: Path, path: Path) -> None:
    os.replace(staged, path)
    to_disk(path.parent)  # or a power cut may bring the old file back


def to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
