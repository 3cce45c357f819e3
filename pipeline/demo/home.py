"""The demo's own folder: claimed, emptied of the last demo, and free ports for this one."""

import os
import shutil
import socket
from pathlib import Path

from nearline.errors import BadInput
from nearline.settings import settings
from pipeline import services

_MARKER = ".demo"
_KEPT = {_MARKER, "cache"}


def claim_home() -> Path:
    """End what an earlier demo left running, and empty its folder; downloads are kept.

    Raises BadInput for a folder that holds something other than a demo.
    """
    home = settings().home
    if home.exists() and any(home.iterdir()) and not (home / _MARKER).exists():
        raise BadInput(
            f"{home} holds data that is no demo's: name an empty folder by NEARLINE_HOME"
        )
    home.mkdir(parents=True, exist_ok=True)
    (home / _MARKER).touch()
    services.stop_all()
    for entry in home.iterdir():
        if entry.name not in _KEPT:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return home


def set_up(**values: object) -> None:
    """Set settings for this process and for every process that it starts."""
    os.environ.update({f"NEARLINE_{name.upper()}": str(value) for name, value in values.items()})
    settings.cache_clear()


def choose_ports() -> None:
    """Take the settings' ports where they are free, else the next free ones."""
    set_up(
        airflow_port=_free_port(settings().airflow_port),
        serve_port=_free_port(settings().serve_port),
    )


def _free_port(wanted: int) -> int:
    for port in range(wanted, wanted + 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise BadInput(f"no port from {wanted} to {wanted + 99} is free: stop what listens there")
