"""A small file that is read while it changes: the old one or the new one, never a part."""

import os
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
    os.replace(staged, path)
