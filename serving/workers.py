"""Runs the app, in this process or in several that share a port."""

import gc
import math
import ssl
import sys
import threading
from collections.abc import Callable, Sequence
from ctypes import c_bool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from socket import SO_REUSEADDR, SO_REUSEPORT, SOCK_STREAM, SOL_SOCKET, socket
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from nearline.errors import ConfigError
from nearline.settings import settings
from serving.hosts import is_loopback
from serving.keys import Key
from serving.logs import LOGGING, thread_ended
from serving.metrics import share
from serving.protocol import GuardedProtocol

_SPARE_S = 1
"""A server that stops waits so much longer than its clients may take."""
_SILENT_FOR_S = 60
"""A worker that leaves its parent without an answer for so long is replaced."""


def check_exposure(host: str, keys: Sequence[Key], issuer: str = "") -> None:
    """Raise ConfigError for an address beyond this machine without a key or an issuer of tokens."""
    if not (is_loopback(host) or keys or issuer):
        raise ConfigError(
            f"refusing to listen on {host} without keys: make one with `nearline keys add`, or "
            "listen on 127.0.0.1"
        )


@dataclass(frozen=True)
class Certificate:
    """Files in PEM format: the certificate with its chain, and its private key."""

    cert: Path
    key: Path

    @classmethod
    def of(cls, cert: str, key: str) -> "Certificate | None":
        """The files of the settings, where they name any.

        Raises ConfigError when one is missing, or when they do not fit each other.
        """
        if not cert and not key:
            return None
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"NEARLINE_TLS_CERT={cert!r} and NEARLINE_TLS_KEY={key!r} cannot be used "
                f"({error}): name a certificate and its private key, both PEM files"
            ) from error
        return cls(Path(cert), Path(key))


def worker_app(guarded: c_bool) -> FastAPI:
    """The app in a process of its own; those of one server share `guarded`: see Access."""
    from serving.access import Access
    from serving.api import create_app

    threading.excepthook = thread_ended
    return create_app(access=Access.open(guarded=guarded, loopback=True), started=settle)


def settle() -> None:
    """Leave what is there now out of garbage collection, for as long as the process lives.

    The objects of a start, of Feast's imports and the catalogue, are in memory to stay. To look
    through them takes a fifth of a second, while every request waits.
    """
    gc.collect()
    gc.freeze()


def server_config(
    app: FastAPI | Callable[[], FastAPI],
    *,
    workers: int = 1,
    certificate: Certificate | None = None,
) -> uvicorn.Config:
    """How the API is served: an app, or what makes one in each process."""
    return uvicorn.Config(
        app,
        factory=not isinstance(app, FastAPI),
        workers=workers,
        http=GuardedProtocol,
        log_config=LOGGING,
        access_log=False,
        timeout_worker_healthcheck=_SILENT_FOR_S,
        timeout_graceful_shutdown=math.ceil(settings().client_timeout_s) + _SPARE_S,
        ssl_certfile=certificate.cert if certificate else None,
        ssl_keyfile=certificate.key if certificate else None,
    )


def run(
    listener: socket, *, guarded: bool, workers: int, certificate: Certificate | None = None
) -> None:
    """Answer at a bound socket until a signal ends it. A worker that dies is replaced.

    `guarded` says that keys are needed, whatever becomes of their file.
    """
    shared = get_context("spawn").RawValue(c_bool, guarded)
    app = partial(worker_app, shared)
    config = server_config(app, workers=workers, certificate=certificate)
    if workers == 1:
        uvicorn.Server(config).run(sockets=[listener])
        return
    with share():
        Workers(config, sockets=[EachItsOwn.instead_of(listener)]).run()


class Workers(Multiprocess):
    """Processes that answer. One that dies is replaced, in its start as well."""

    def keep_subprocess_alive(self) -> None:
        for process in self.processes:
            # The worker has an end of its own. While ours is open the pipe outlasts the worker, and
            # a question to one that has just died waits for its answer as long as for a silent one.
            process.child_conn.close()
        super().keep_subprocess_alive()


class EachItsOwn(socket):
    """A bound socket that each process which is handed it opens for itself, at the same address.

    Then Linux deals connections out to the processes as they come. Of one socket that all listen
    to, the process that wakes first takes all connections that wait: with two workers and a few
    clients that keep theirs open, one worker may do all the work, and the other none.
    """

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return EachItsOwn.bound, (self.family, self.getsockname())

    @classmethod
    def bound(cls, family: int, address: Any) -> "EachItsOwn":
        """One more socket at an address."""
        made = cls(family, SOCK_STREAM)
        made.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        made.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
        made.bind(address)
        return made

    @classmethod
    def instead_of(cls, listener: socket) -> socket:
        """In place of a bound socket, which is closed; the same one where no other system than
        Linux would deal out what comes."""
        if sys.platform != "linux":
            return listener
        family, address = listener.family, listener.getsockname()
        listener.close()
        return cls.bound(family, address)
