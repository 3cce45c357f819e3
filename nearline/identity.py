"""User ids as they are stored, and keyed hashes of them.

Who is meant by a hash can be told by whoever has the secret, and by nobody else.

HMAC-SHA256 (RFC 2104) of the id, with the secret of the settings or else one that is made once and
kept, for its owner's eyes, in `HOME/id_secret`. A hash for one purpose tells nothing of another's.
"""

import hmac
import os
import re
import secrets
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from nearline.settings import settings

Purpose = Literal["stored", "forgotten"]

_HEX_DIGITS = 32
"""128 bits: no two of any number of users that a site can have get the same."""

_PSEUDONYM = re.compile(r"~\x7f?[0-9a-f]{32}")
_WELL_FORMED = re.compile(r"[^\x00-\x1f\x7f]{1,256}")


def stored_id(user_id: str) -> str:
    """The id under which all is stored of a user: with NEARLINE_PSEUDONYMISE a pseudonym.

    What is a pseudonym already stays as it is: data may come through several doors. An ill-formed
    id gets an ill-formed pseudonym, so that its rows are refused all the same.
    """
    if not settings().pseudonymise or not user_id or _PSEUDONYM.fullmatch(user_id):
        return user_id
    mark = "~" if _WELL_FORMED.fullmatch(user_id) else "~\x7f"
    return mark + keyed_hash("stored", user_id)


def stored_ids(user_ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """The stored ids of a column; null stays null."""
    if not settings().pseudonymise:
        return user_ids
    known = pc.unique(user_ids).drop_null()
    stored = pa.array([stored_id(user_id) for user_id in known.to_pylist()], pa.string())
    return stored.take(pc.index_in(user_ids, value_set=known).combine_chunks())


def keyed_hash(purpose: Purpose, user_id: str) -> str:
    """The hash of a user id for one purpose, as 32 hexadecimal digits."""
    told = f"{purpose}\0{user_id}".encode("utf-8", "surrogatepass")
    return hmac.digest(_secret(), told, "sha256").hex()[:_HEX_DIGITS]


def _secret() -> bytes:
    given = settings().id_secret
    return given.encode() if given else _kept_secret(settings().home)


@cache
def _kept_secret(home: Path) -> bytes:
    path = home / "id_secret"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file of its own, for its owner's eyes: another thread may make one as well.
        with NamedTemporaryFile("w", dir=path.parent, prefix=f"{path.name}.") as staged:
            staged.write(secrets.token_hex(32))
            staged.flush()
            os.fsync(staged.fileno())
            with suppress(FileExistsError):
                os.link(staged.name, path)  # unlike a rename, it leaves what another one made
    return path.read_bytes()
