"""The keys of the API, kept as hashes in one file of the home: who may call, and as what.

A key is `nl_<id>_<secret>` and is shown once, when it is made. The file holds the SHA-256 of it:
the secret is 256 random bits, so no list of guesses finds it, and a slow hash, which every request
would pay for, would guard nothing more.
"""

import fcntl
import hashlib
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nearline.errors import BadInput, ConfigError
from nearline.faults import one_line
from nearline.records import Id
from nearline.replacing import replace_file
from nearline.settings import settings
from serving.watched import version_of

PREFIX = b"nl_"
_ONLY_OWNER = 0o600


class Role(StrEnum):
    """What a key may do; each role may do what those before it may."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def covers(self, needed: "Role") -> bool:
        """Whether this role may do what `needed` may."""
        return _RANK[self] >= _RANK[needed]


_RANK = {role: place for place, role in enumerate(Role)}


class Key(BaseModel):
    """One key as it is kept. `rate`: requests a second that it may make; None: the setting's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key_id: str = Field(pattern="^[0-9a-f]{12}$")
    name: Id
    role: Role
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    created_ts: datetime
    rate: float | None = Field(None, gt=0)


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: list[Key]


def digest(key: bytes) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key).hexdigest()


def id_in(key: bytes) -> str:
    """The id that a key names."""
    return key.removeprefix(PREFIX).partition(b"_")[0].decode("latin-1")


class KeyFile:
    """The file of keys. Once it is there, every request needs a key of it, even if it has none."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls) -> "KeyFile":
        """The file that the settings name."""
        return cls(settings().keys)

    def version(self) -> tuple[int, int] | None:
        """Differs from what it was when the file was changed; None while there is no file."""
        return version_of(self.path)

    def read(self) -> list[Key]:
        """The keys, oldest first; none while there is no file. Raises ConfigError."""
        try:
            return _Kept.model_validate_json(self.path.read_bytes()).keys
        except FileNotFoundError:
            return []
        except (OSError, ValidationError) as error:
            raise ConfigError(
                f"{self.path} cannot be read as keys ({error}): restore it, or remove it and make "
                "new keys with `nearline keys add`"
            ) from error

    def add(self, *, name: str, role: Role, rate: float | None, now: datetime) -> tuple[Key, str]:
        """Make a key; returns it as it is kept, and the key itself, which is not kept.

        Raises BadInput for a name or a rate that is none.
        """
        key_id = secrets.token_hex(6)
        text = f"{PREFIX.decode()}{key_id}_{secrets.token_urlsafe(32)}"
        try:
            made = Key(
                key_id=key_id,
                name=name,
                role=role,
                sha256=digest(text.encode()),
                created_ts=now,
                rate=rate,
            )
        except ValidationError as error:
            raise BadInput(f"no such key can be made: {one_line(error)}") from error
        with self._alone():
            self._write([*self.read(), made])
        return made, text

    def revoke(self, key_id: str) -> Key:
        """Remove a key, and return it. Raises BadInput where there is none of that id."""
        with self._alone():
            keys = self.read()
            gone = next((key for key in keys if key.key_id == key_id), None)
            if gone is None:
                raise BadInput(f"no key has the id {key_id!r}: see `nearline keys list`")
            self._write([key for key in keys if key is not gone])
            return gone

    def _write(self, keys: Sequence[Key]) -> None:
        kept = _Kept(keys=list(keys)).model_dump_json(indent=2)
        replace_file(self.path, kept, mode=_ONLY_OWNER)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(f".{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
