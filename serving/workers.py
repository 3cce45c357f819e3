"""Runs the app, in this process or in several that share a port."""

import ipaddress
from socket import socket
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from nearline.errors import ConfigError
from serving.metrics import share

_APP = "serving.api:create_app"
_SILENT_FOR_S = 60
"""A worker that leaves its parent without an answer for so long is replaced."""

_LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"level": "INFO", "handlers": ["stderr"]},
    "loggers": {"feast": {"level": "WARNING"}, "uvicorn": {"level": "WARNING"}},
}


def check_exposure(host: str, api_key: str) -> None:
    """Raise ConfigError for an address beyond this machine without a key."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not api_key:
        raise ConfigError(
            f"refusing to listen on {host} without a key: set NEARLINE_API_KEY, or listen on "
            "127.0.0.1"
        )


def run(listener: socket, *, workers: int) -> None:
    """Answer at a bound socket until a signal ends it. A worker that dies is replaced."""
    config = uvicorn.Config(
        _APP,
        factory=True,
        workers=workers,
        log_config=_LOGGING,
        access_log=False,
        timeout_worker_healthcheck=_SILENT_FOR_S,
    )
    if workers == 1:
        uvicorn.Server(config).run(sockets=[listener])
        return
    with share():
        Multiprocess(config, sockets=[listener]).run()
