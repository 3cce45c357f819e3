"""Tokens of an issuer, made here with a key of its own."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from nearline.errors import ConfigError
from nearline.settings import settings
from serving.access import Access
from serving.errors import RateLimited, Unauthorized
from serving.keys import KeyFile, Role
from serving.limits import BURST_S, RateLimits
from serving.tokens import Tokens, read_keys

ISSUER, AUDIENCE = "https://issuer.example", "nearline"


class Issuer:
    """Signs tokens, and publishes its public keys as a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.turn("first")

    def turn(self, kid: str) -> None:
        """Sign with a new key from now on, and publish it alone."""
        self.kid, self.key = kid, ec.generate_private_key(ec.SECP256R1())
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key()))
        self.path.write_text(json.dumps({"keys": [public | {"kid": kid, "use": "sig"}]}))

    def claims(self, **changes: Any) -> dict[str, Any]:
        made = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "shop",
            "exp": time.time() + 600,
            "roles": ["other:admin", "nearline:read"],
        }
        return {name: value for name, value in (made | changes).items() if value is not None}

    def token(self, **changes: Any) -> str:
        headers = {"kid": self.kid}
        return jwt.encode(self.claims(**changes), self.key, algorithm="ES256", headers=headers)


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path / "jwks.json")


class Clock:
    """Unix time that a test turns."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(issuer: Issuer, clock: Clock) -> Iterator[Tokens]:
    jwks = str(issuer.path)
    found = Tokens(issuer=ISSUER, audience=AUDIENCE, jwks=jwks, claim="roles", clock=clock)
    yield found
    found.close()


def test_a_token_tells_who_asks_and_as_what(issuer: Issuer, tokens: Tokens) -> None:
    many = {"roles": ["nearline:read", "nearline:admin", "nearline:write"]}
    for changes, role in (
        ({}, Role.READ),
        (many, Role.ADMIN),
        ({"roles": "openid nearline:write"}, Role.WRITE),
        ({"aud": ["other", AUDIENCE]}, Role.READ),
    ):
        bearer = tokens.bearer(issuer.token(**changes).encode())
        assert (bearer.subject, bearer.role) == ("shop", role)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"},
        {"aud": "other"},
        {"exp": 1.0},
        {"nbf": time.time() + 3600},
        *({name: None} for name in ("iss", "aud", "sub", "exp", "roles")),
        *({"roles": roles} for roles in ([], ["admin"], "admin", {"nearline:admin": 1}, 7, [[]])),
    ],
)
def test_a_token_that_is_not_for_us_is_refused(
    issuer: Issuer, tokens: Tokens, changes: dict[str, Any]
) -> None:
    with pytest.raises(Unauthorized):
        tokens.bearer(issuer.token(**changes).encode())


def test_a_token_that_another_signed_is_refused(issuer: Issuer, tokens: Tokens) -> None:
    public = json.loads(issuer.path.read_text())["keys"][0]
    other = ec.generate_private_key(ec.SECP256R1())
    claims = issuer.claims()
    forged = [
        jwt.encode(claims, other, algorithm="ES256", headers={"kid": issuer.kid}),
        jwt.encode(claims, issuer.key, algorithm="ES256", headers={"kid": "unknown"}),
        jwt.encode(claims, issuer.key, algorithm="ES256"),
        jwt.encode(claims, None, algorithm="none", headers={"kid": issuer.kid}),
        jwt.encode(claims, public["x"] * 2, algorithm="HS256", headers={"kid": issuer.kid}),
        jwt.encode(
            claims, issuer.key, algorithm="ES256", headers={"kid": issuer.kid, "jwk": public}
        )[:-4],
        *("", "a.b.c", "é", "." * 1000, "eyJhbGciOiJub25lIn0.e30."),
    ]
    for token in forged:
        with pytest.raises(Unauthorized):
            tokens.bearer(token.encode())


def test_a_token_is_over_though_it_was_let_in_before(
    issuer: Issuer, tokens: Tokens, clock: Clock
) -> None:
    token = issuer.token().encode()
    assert tokens.bearer(token).role == Role.READ
    clock.ahead = 700
    with pytest.raises(Unauthorized, match="over"):
        tokens.bearer(token)


def test_the_issuer_may_turn_its_keys(issuer: Issuer, tokens: Tokens) -> None:
    old = issuer.token().encode()
    assert tokens.bearer(old).subject == "shop"
    issuer.turn("second")
    tokens.refresh()
    assert tokens.bearer(issuer.token().encode()).subject == "shop"
    with pytest.raises(Unauthorized):
        tokens.bearer(old)
    issuer.path.write_text("{")
    tokens.refresh()
    assert tokens.bearer(issuer.token().encode()).subject == "shop"


def test_only_public_keys_with_an_id_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"}
    nameless = json.loads(
        jwt.algorithms.RSAAlgorithm.to_jwk(
            rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
        )
    )
    for content in ("", "{}", '{"keys": []}', json.dumps({"keys": [secret, nameless]})):
        path.write_text(content)
        with pytest.raises(ConfigError, match="NEARLINE_OIDC_JWKS"):
            read_keys(str(path))
    for place in (str(tmp_path / "nowhere"), "http://127.0.0.1/jwks", "https://127.0.0.1:1/jwks"):
        with pytest.raises(ConfigError, match="NEARLINE_OIDC_JWKS"):
            read_keys(place)


def test_tokens_and_keys_are_let_in_beside_each_other(
    world: Any, issuer: Issuer, keyed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "jwks": str(issuer.path),
    }.items():
        monkeypatch.setenv(f"NEARLINE_OIDC_{name.upper()}", value)
    settings.cache_clear()
    world.promote(["i0", "i1"])
    with world.client() as client:

        def status(method: str, path: str, secret: str) -> int:
            headers = {"authorization": f"Bearer {secret}"}
            return int(client.request(method, path, headers=headers).status_code)

        assert client.get("/v1/trending").status_code == 401
        assert status("GET", "/v1/trending", issuer.token()) == 200
        assert status("POST", "/v1/events", issuer.token()) == 403
        assert status("GET", "/v1/trending", issuer.token(aud="other")) == 401
        key = keyed("read")
        assert status("GET", "/v1/trending", key[:-1]) == 401
    with world.client() as client:
        assert status("GET", "/v1/trending", key) == 200
        assert status("GET", "/v1/trending", issuer.token()) == 200


def test_a_subject_has_the_rate_of_the_settings(home: Path, issuer: Issuer, tokens: Tokens) -> None:
    limits = RateLimits(home / "limits", clock=lambda: 1000.0)
    access = Access(KeyFile.open(), limits, tokens, rate=3)

    def ask(token: str) -> bool:
        try:
            access.admit("GET", "/v1/trending", f"Bearer {token}".encode())
        except RateLimited:
            return False
        return True

    # A new token of the same subject does not begin anew.
    assert sum(ask(issuer.token(jti=str(n))) for n in range(20)) == 3 * BURST_S
    assert ask(issuer.token(sub="another/../shop"))


def test_an_issuer_without_an_audience_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_OIDC_ISSUER", ISSUER)
    settings.cache_clear()
    with pytest.raises(ConfigError, match="NEARLINE_OIDC_AUDIENCE"):
        settings()
