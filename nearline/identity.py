"""Keyed hashes of user ids: who is meant can be told by whoever has the secret, and by nobody else.

HMAC-SHA256 (RFC 2104) of the id, with the secret of the settings or else one that is made once and
kept, for its owner's eyes, in `HOME/id_secret`. A hash for one purpose tells nothing of another's.
"""

import hmac
import os
import secrets
from functools import cache
from pathlib import Path
from typing import Literal

from nearline.settings import settings

Purpose = Literal["forgotten"]

_HEX_DIGITS = 32
"""128 bits: no two of any number of users that a site can have get the same."""


def keyed_hash(purpose: Purpose, user_id: str) -> str:
    """The hash of a user id for one purpose, as 32 hexadecimal digits."""
    told = f"{purpose}\0{user_id}".encode("utf-8", "surrogatepass")
    return hmac.digest(_secret(), told, "sha256").hex()[:_HEX_DIGITS]


def _secret() -> bytes:
    given = settings().id_secret
    return given.encode() if given else _kept_secret(settings().home / "id_secret")


@cache
def _kept_secret(path: Path) -> bytes:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        staged.touch(0o600)
        staged.write_text(secrets.token_hex(32))
        try:
            os.link(staged, path)  # unlike a rename, it leaves one that another process made
        except FileExistsError:
            pass
        finally:
            staged.unlink()
    return path.read_bytes()
