"""Who is let in: each request's key, what its role may do, and how often it may call.

| role | may |
|---|---|
| none | `/healthz`, `/readyz`: a balancer asks them |
| read | every other GET, and the POSTs that only ask: recommendations, by a body |
| write | also POST and PUT: events, items |
| admin | also DELETE, and everything under `/v1/admin/` |

The role goes by method and path, not by route: what is added later, and what does not exist, needs
one as well.
"""

import hmac
import logging
import time
from collections.abc import Callable
from ctypes import c_bool
from typing import NamedTuple

from nearline.errors import ConfigError
from nearline.settings import settings
from serving.errors import Forbidden, RateLimited, RefusedRequest, Unauthorized
from serving.hosts import names_loopback
from serving.keys import PREFIX, KeyFile, Role, digest, id_in
from serving.limits import RateLimits
from serving.tokens import Tokens

log = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
ADMIN_PATHS = "/v1/admin/"
_READING_POSTS = frozenset({"/v1/recommendations", "/v1/sessions/recommendations"})
"""They ask by a body, and change nothing."""

_READING = frozenset({"GET", "HEAD"})
_WRITING = frozenset({"POST", "PUT"})

_LOOK_EVERY_S = 1.0
_NOBODY = digest(b"")


def needed_role(method: str, path: str) -> Role | None:
    """The role that a request needs; None for what anyone may ask."""
    if path in OPEN_PATHS:
        return None
    if path.startswith(ADMIN_PATHS):
        return Role.ADMIN
    if method in _READING or path in _READING_POSTS:
        return Role.READ
    return Role.WRITE if method in _WRITING else Role.ADMIN


class Caller(NamedTuple):
    """Who asks: the name that refusals tell, the role, and how often it may (`rate` a second)."""

    name: str
    role: Role
    rate: float
    bucket: str


def _let_wait(caller: Caller, wait_s: float) -> None:
    """Raise RateLimited where there is something to wait for."""
    if wait_s:
        raise RateLimited(
            f"{caller.name!r} may ask {caller.rate:g} times a second: ask again in {wait_s:.2g} s",
            retry_after_s=wait_s,
        )


class Access:
    """Judges every request. For one thread at a time; costs some microseconds.

    The file of keys is looked at once a second: a key that is added or revoked counts from then on.
    Without a file and without an issuer of tokens, nobody needs a key. A file that vanishes, or
    that cannot be read, changes nothing: the keys that were known stay. Workers of one server share
    `guarded`, which is true once any of them needs keys: one that starts when the file is lost
    knows no key, and refuses everybody until the file is back.

    `loopback` says that whoever needs no key must ask for this machine: names_loopback tells why.
    """

    def __init__(
        self,
        file: KeyFile,
        limits: RateLimits,
        tokens: Tokens | None = None,
        *,
        rate: float,
        guarded: c_bool | None = None,
        loopback: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file, self._limits, self._tokens = file, limits, tokens
        self._rate, self._loopback, self._clock = rate, loopback, clock
        self._guarded = c_bool(False) if guarded is None else guarded
        self._version = file.version()
        self._keys = {key.key_id: key for key in file.read()}
        self._looked = clock()
        if self._version is not None or tokens is not None:
            self._guarded.value = True
        elif self._guarded.value:
            log.error("%s is gone: nobody is let in until it is back", file.path)
        self._needs_keys = self._guarded.value

    @classmethod
    def open(cls, *, guarded: c_bool | None = None, loopback: bool = False) -> "Access":
        """Access as the settings have it. Raises ConfigError for keys that cannot be read."""
        config = settings()
        return cls(
            KeyFile.open(),
            RateLimits(config.home / "limits"),
            Tokens.open(),
            rate=config.key_rate,
            guarded=guarded,
            loopback=loopback,
        )

    def admit(self, method: str, path: str, authorization: bytes, host: str = "") -> Caller | None:
        """Who asks; None for anyone. `host` is the request's header.

        Raises RefusedRequest: Unauthorized, Forbidden, RateLimited, or for a foreign host.
        """
        self._look()
        needed = needed_role(method, path)
        if needed is None:
            return None
        if not self._needs_keys:
            self._require_own(host)
            return None
        caller = self._caller(authorization)
        if caller.rate:
            _let_wait(caller, self._limits.wait(caller.bucket, caller.rate))
        if not caller.role.covers(needed):
            raise Forbidden(
                f"{caller.name!r} has the role {caller.role}, and {method} {path} needs {needed}: "
                "ask with a key of that role (`nearline keys add`)"
            )
        return caller

    def count_lists(self, caller: Caller | None, lists: int) -> None:
        """Count a request that was admitted as so many. For any thread.

        Raises RateLimited where other requests have taken more than is there.
        """
        if caller is not None and caller.rate and lists > 1:
            _let_wait(caller, self._limits.wait_for_more(caller.bucket, caller.rate, lists - 1))

    def close(self) -> None:
        """Follow the issuer of tokens no more."""
        if self._tokens is not None:
            self._tokens.close()

    def _require_own(self, host: str) -> None:
        if self._loopback and not names_loopback(host):
            raise RefusedRequest(
                f"without keys this machine alone is answered, and {host[:100]!r} is no name of "
                "it: ask localhost or 127.0.0.1, or make a key (`nearline keys add`)",
                code="foreign_host",
            )

    def _caller(self, authorization: bytes) -> Caller:
        scheme, _, given = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            raise Unauthorized("no key was given: send `Authorization: Bearer KEY`")
        if self._tokens is not None and not given.startswith(PREFIX):
            bearer = self._tokens.bearer(given)
            bucket = digest(bearer.subject.encode())
            return Caller(bearer.subject, bearer.role, self._rate, bucket)
        key = self._keys.get(id_in(given))
        # Compared whatever the id: how long it takes tells nothing of what is known.
        if not hmac.compare_digest(digest(given), key.sha256 if key else _NOBODY) or key is None:
            raise Unauthorized("the key is not known: it was never made, or was revoked")
        return Caller(key.name, key.role, key.rate or self._rate, key.key_id)

    def _look(self) -> None:
        now = self._clock()
        if now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        version = self._file.version()
        if version is None or version == self._version:
            return
        self._version = version
        self._needs_keys = self._guarded.value = True
        try:
            self._keys = {key.key_id: key for key in self._file.read()}
        except ConfigError:
            log.exception("the keys were not taken over: those known before stay")
