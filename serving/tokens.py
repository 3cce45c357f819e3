"""Bearer tokens of an OIDC issuer: signed JWTs (RFC 7519, RFC 9068) that tell who asks, as what.

A token is let in when it is signed by a key of the issuer's set (JWKS, RFC 7517), is of the issuer
and for the audience of the settings, is not over, and has a role of ours in its claim of roles:
`nearline:read`, `nearline:write` or `nearline:admin`. So nobody is an admin here for being one
elsewhere.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event as Signal
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from nearline.errors import ConfigError
from nearline.settings import settings
from serving.errors import Unauthorized
from serving.keys import Role

if TYPE_CHECKING:
    from jwt import PyJWK

log = logging.getLogger(__name__)

_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA"})
"""With public keys only: a shared secret is no proof of who signed."""

_ROLES = {f"nearline:{role}": role for role in Role}
"""As a token names them, the least first."""

_LOOK_EVERY_S = 60.0
_PATIENCE_S = 5.0
_LEEWAY_S = 30
_MOST_KNOWN = 10_000


class Bearer(NamedTuple):
    """Whom a token names, its role, and when it is over (Unix time)."""

    subject: str
    role: Role
    until: float


class Tokens:
    """Judges tokens of one issuer. A token that was judged costs one hash until it is over.

    The issuer's keys are read again every minute, by a thread of their own until `close`; keys that
    cannot be read leave those that were known.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        jwks: str,
        claim: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuer, self._audience, self._jwks, self._claim = issuer, audience, jwks, claim
        self._clock = clock
        self._known: dict[bytes, Bearer] = {}
        self._keys = read_keys(jwks)
        self._stopped = Signal()
        self._watch = Thread(target=self._follow, name="issuer", daemon=True)
        self._watch.start()

    @classmethod
    def open(cls) -> "Tokens | None":
        """What the settings say; None without an issuer. Raises ConfigError."""
        config = settings()
        if not config.oidc_issuer:
            return None
        return cls(
            issuer=config.oidc_issuer,
            audience=config.oidc_audience,
            jwks=config.oidc_jwks,
            claim=config.oidc_claim,
        )

    def bearer(self, token: bytes) -> Bearer:
        """Whom a token names. Raises Unauthorized."""
        seen = hashlib.sha256(token).digest()
        bearer = self._known.get(seen)
        if bearer is None:
            bearer = self._judge(token)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[seen] = bearer
        if bearer.until + _LEEWAY_S <= self._clock():
            raise Unauthorized("the token is over: ask the issuer for another")
        return bearer

    def refresh(self) -> None:
        """Read the issuer's keys again. Tokens are judged anew by them."""
        try:
            self._keys = read_keys(self._jwks)
        except ConfigError:
            log.exception("the issuer's keys were not taken over: those known before stay")
        else:
            self._known = {}

    def close(self) -> None:
        """Follow the issuer no more."""
        self._stopped.set()
        self._watch.join()

    def _follow(self) -> None:
        while not self._stopped.wait(_LOOK_EVERY_S):
            self.refresh()

    def _judge(self, token: bytes) -> Bearer:
        import jwt

        try:
            key = self._keys[jwt.get_unverified_header(token)["kid"]]
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=self._issuer,
                audience=self._audience,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except KeyError as error:
            raise Unauthorized("the token names no signing key of the issuer") from error
        except jwt.PyJWTError as error:
            raise Unauthorized(f"the token is not let in: {error}") from error
        return Bearer(claims["sub"], self._role(claims), float(claims["exp"]))

    def _role(self, claims: Mapping[str, Any]) -> Role:
        told = claims.get(self._claim, [])
        names = told.split() if isinstance(told, str) else told
        ours = [role for name, role in _ROLES.items() if isinstance(names, list) and name in names]
        if not ours:
            raise Unauthorized(
                f"the token has none of {', '.join(_ROLES)} in its claim {self._claim!r}"
            )
        return ours[-1]


def read_keys(jwks: str) -> "dict[str, PyJWK]":
    """The signing keys of a set, by their ids; `jwks` is a file or an https address.

    Raises ConfigError when it cannot be read, or has none.
    """
    import httpx
    import jwt

    try:
        if jwks.startswith("https://"):
            text = httpx.get(jwks, timeout=_PATIENCE_S).raise_for_status().text
        else:
            text = Path(jwks).read_text()
        found = jwt.PyJWKSet.from_json(text).keys
    except (OSError, ValueError, httpx.HTTPError, jwt.PyJWTError) as error:
        raise ConfigError(f"NEARLINE_OIDC_JWKS={jwks!r} cannot be read: {error}") from error
    keys = {key.key_id: key for key in found if key.key_id and key.algorithm_name in _ALGORITHMS}
    if not keys:
        raise ConfigError(f"NEARLINE_OIDC_JWKS={jwks!r} has no public key with an id (`kid`)")
    return keys
