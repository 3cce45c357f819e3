"""Files that are followed while the API runs."""

from pathlib import Path


def version_of(path: Path) -> tuple[int, int] | None:
    """Differs from what it was when the file was changed; None while there is no file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino
