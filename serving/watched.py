"""Files that are followed while the API runs."""

from pathlib import Path

Version = tuple[int, int] | None


def version_of(path: Path) -> Version:
    """Differs from what it was when the file was changed; None while there is no file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino
