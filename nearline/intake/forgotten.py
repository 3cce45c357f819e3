"""Users who asked to be forgotten: the wish counts from the moment that it is on disk.

`intake/forgotten/wishes.jsonl` is followed by every worker, as journals are: a line says since when
the user of a keyed hash is forgotten, a later one that all before is removed. It is kept for ever,
so that what happened before that moment never comes back: not by late events, nor when a file is
loaded again. What happens later is taken for another person's.

`intake/forgotten/pending/users/<hash>.json` names the user until the removal is done, and keeps
what the removal has found. Older versions called it `pending/<request>.json`.
"""

import json
import os
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from nearline.erasure import Since, owners
from nearline.errors import NotKept
from nearline.identity import keyed_hash, stored_id
from nearline.intake.files import whole_lines
from nearline.intake.writer import utc_now
from nearline.locks import alone
from nearline.replacing import to_disk
from nearline.schema import USER_ID
from nearline.settings import settings

Found = dict[str, dict[str, int]]
"""Place, such as a dataset of the lake → its part, such as a file → rows."""

_TIMES = ("since", "clean")
_WISHES = "wishes.jsonl"


@dataclass(frozen=True)
class Wish:
    """A user's wish: all before `since` is to be removed.

    `found` is what the removal has found so far, by the `since` (ISO 8601) that it went by. The
    lake and the journals are `clean` of what was before that time. `name` is its file's, below the
    folder of pending wishes; older versions wrote none, and called the file by the request.
    """

    request: str
    user_id: str
    since: datetime
    found: dict[str, Found] = field(default_factory=dict)
    clean: datetime | None = None
    name: str = ""

    @property
    def hash(self) -> str:
        """What is kept of the user's id."""
        return keyed_hash("forgotten", self.user_id)


def forgotten_root() -> Path:
    """Where wishes lie."""
    return settings().intake / "forgotten"


def ask(user_id: str, *, clock: Callable[[], datetime] = utc_now) -> Wish:
    """Forget a user from now on; the wish is on disk when this returns, the removal is to come.

    The id is the site's, or the stored one. Who asks again before the removal gets the same
    request, and is forgotten up to now. Raises NotKept when the disk does not keep it.
    """
    try:
        with alone("wishes"):
            since, user_id = clock(), stored_id(user_id)
            name = f"users/{keyed_hash('forgotten', user_id)}"
            wish = Wish(uuid.uuid4().hex, user_id, since, name=name)
            wish = replace(_asked_before(wish) or wish, since=since)
            # Named before it counts: a wish that counts will be carried out.
            _keep(wish)
            _tell(wish, done=False)
            return wish
    except OSError as error:
        raise NotKept(f"no wish can be kept in {forgotten_root()}: {error}") from error


def pending() -> list[Wish]:
    """The wishes that are not carried out yet, in the order of their requests."""
    wishes = map(_read, _pending_folder().rglob("*.json"))
    return sorted(wishes, key=lambda wish: wish.request)


def as_it_stands(wish: Wish) -> Wish:
    """A wish that is not carried out yet, as it is now: it may have been asked for anew."""
    return _read(_path(wish))


def note(wish: Wish, found: Found) -> None:
    """Keep what the removal is about to remove, beside what it noted of the wish before."""
    since = wish.since.isoformat()

    def noted(now: Wish) -> Wish:
        known = now.found.get(since, {})
        both = {place: known.get(place, {}) | found.get(place, {}) for place in {*known, *found}}
        return replace(now, found=now.found | {since: both})

    _change(wish, noted)


def cleaned(wish: Wish) -> None:
    """Record that the lake and the journals hold nothing of the wish any more."""
    _change(wish, lambda now: replace(now, clean=wish.since))


def _change(wish: Wish, change: Callable[[Wish], Wish]) -> None:
    with alone("wishes"):
        _keep(change(as_it_stands(wish)))


def finish(wish: Wish) -> bool:
    """Record that a wish is carried out, and drop the name; False when it was asked for anew."""
    with alone("wishes"):
        if as_it_stands(wish).since != wish.since:
            return False
        _tell(wish, done=True)
        for named in (_path(wish), *_pending_folder().rglob("*.tmp")):
            named.unlink()
        return True


@dataclass(frozen=True)
class _Known:
    """The newest wish of a user, and up to when all is removed."""

    since: datetime
    done: datetime | None = None


class Forgotten:
    """Who was forgotten, and since when. For one thread at a time; reading is for any."""

    def __init__(self, root: Path) -> None:
        self._path = root / _WISHES
        self._read = 0
        self._known: dict[str, _Known] = {}

    @classmethod
    def load(cls) -> "Forgotten":
        """All wishes of the settings' intake, as they stand now."""
        found = cls(forgotten_root())
        found.follow()
        return found

    def follow(self) -> dict[str, datetime]:
        """Take up what was asked for since the last call: the keyed hashes of those users, and
        the moment before which each is forgotten.

        One system call where nothing was: so that it can be done for every request.
        """
        try:
            size = os.stat(self._path).st_size
        except FileNotFoundError:
            return {}
        if size <= self._read:
            return {}
        lines, length = whole_lines(str(self._path), self._read)
        users = {user for line in lines if (user := self._learn(line)) is not None}
        self._read += length
        return {user: self._known[user].since for user in users}

    @property
    def heard(self) -> int:
        """Of how much it knows; another number once it has taken up more."""
        return self._read

    def since(self, user_id: str) -> datetime | None:
        """The moment before which a user is forgotten, if there is one."""
        known = self._of(user_id)
        return known.since if known else None

    def tells(self, user_id: str, happened: datetime) -> bool:
        """Whether what a user did then is forgotten."""
        since = self.since(user_id)
        return since is not None and happened < since

    def hidden(self, user_id: str) -> bool:
        """Whether what is stored of a user is still to be removed, and must not be used."""
        known = self._of(user_id)
        return known is not None and (known.done is None or known.done < known.since)

    def rows(self, table: pa.Table) -> pa.Array:
        """True for each row that tells of a time that was forgotten (see `nearline.erasure`)."""
        since: Since = {}
        if self._known:
            users = pc.unique(table[USER_ID]).to_pylist()
            told = ((user, self.since(user)) for user in users if user is not None)
            since = {user: moment for user, moment in told if moment is not None}
        if not since:
            return pa.repeat(pa.scalar(False), table.num_rows)
        return pc.is_valid(owners(table, since))

    def _of(self, user_id: str) -> _Known | None:
        return self._known.get(keyed_hash("forgotten", user_id)) if self._known else None

    def _learn(self, line: bytes) -> str | None:
        """Take up a line; returns the user's hash."""
        try:
            row = json.loads(line)
        except ValueError:  # empty, or torn off by a crash: nobody was told that it counts
            return None
        since = datetime.fromisoformat(row["since"])
        user = str(row["user"])
        before = self._known.get(user, _Known(since))
        done = since if row["done"] else before.done
        self._known[user] = _Known(max(since, before.since), done)
        return user


def _tell(wish: Wish, *, done: bool) -> None:
    """Add a line to the wishes, on disk on return; one at a time."""
    since = wish.since.isoformat()
    row = {"user": wish.hash, "request": wish.request, "since": since, "done": done}
    with (forgotten_root() / _WISHES).open("ab") as wishes:
        # What a crash tore off ends here, as a line of its own.
        wishes.write(b"\n" + json.dumps(row).encode() + b"\n")
        wishes.flush()
        os.fsync(wishes.fileno())
    to_disk(forgotten_root())


def _pending_folder() -> Path:
    return forgotten_root() / "pending"


def _path(wish: Wish) -> Path:
    return _pending_folder() / f"{wish.name or wish.request}.json"


def _asked_before(wish: Wish) -> Wish | None:
    """The pending wish of the same user, if there is one."""
    if _path(wish).exists():
        return as_it_stands(wish)
    older = map(_read, _pending_folder().glob("*.json"))
    return next((each for each in older if each.user_id == wish.user_id), None)


def _read(path: Path) -> Wish:
    body = json.loads(path.read_text())
    times = {name: body[name] and datetime.fromisoformat(body[name]) for name in _TIMES}
    return Wish(**body | times)


def _keep(wish: Wish) -> None:
    """Replace the file of a wish; it names the user, so that only its owner may read it."""
    path = _path(wish)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".tmp")
    file = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(file, "w") as out:
        json.dump(asdict(wish), out, default=datetime.isoformat)
        out.flush()
        os.fsync(out.fileno())
    staged.replace(path)
    for folder in (path.parent, _pending_folder()):
        to_disk(folder)
