"""Forgetting users: what they did before they asked is removed, from the lake to the online store.

A wish (`nearline.intake.forgotten`) counts at once: it hides the user, and keeps out what happened
before it. The removal goes through every file once for all pending wishes: first the lake, the
journals and what is made from them for a run alone, then the online store, so that nothing can
bring a user back in between. What is about to be removed is noted first; killed anywhere and run
again, it ends in the same state and tells the same in its receipts.

What sums users up stays as it is: aggregates of items, item pairs, and releases. Nothing is made
stale: a partition without the user has the rows that its step would have written of the others.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from tqdm import tqdm

from nearline.erasure import Since
from nearline.intake import forgotten
from nearline.intake.forgotten import Found, Wish, pending
from nearline.intake.writer import utc_now
from nearline.lake import Lake
from nearline.locks import alone
from nearline.settings import settings
from pipeline.erasing import Part, all_parts

_AT_ONCE = 8
"""Files at once: the wait is for the disk or the network."""


@dataclass(frozen=True)
class Removed:
    """What was removed in one place: `rows` in so many `parts` (files, journals, views)."""

    parts: int
    rows: int


@dataclass(frozen=True)
class ForgetReceipt:
    """What was removed of one user, who is told by a keyed hash alone.

    All that was `forgotten_before` that moment is gone since `removed_at`.
    """

    request: str
    user: str
    forgotten_before: datetime
    removed_at: datetime
    removed: dict[str, Removed]

    @classmethod
    def of(cls, wish: Wish, removed_at: datetime) -> "ForgetReceipt":
        """The receipt of a wish that is carried out."""
        places: dict[str, list[int]] = {}
        for found in wish.found.values():
            for place, parts in found.items():
                places.setdefault(place, []).extend(parts.values())
        removed = {
            place: Removed(len(places[place]), sum(places[place])) for place in sorted(places)
        }
        return cls(wish.request, wish.hash, wish.since, removed_at, removed)

    @property
    def path(self) -> Path:
        """Where the receipt lies."""
        return settings().home / "receipts" / f"{self.request}.json"

    def write(self) -> None:
        """Keep the receipt."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        staged = self.path.with_suffix(".tmp")
        staged.write_text(json.dumps(asdict(self), indent=2, default=datetime.isoformat) + "\n")
        staged.replace(self.path)


@alone("lake")
def remove_from_lake() -> int:
    """Remove the users of all pending wishes from the lake and the journals; returns the wishes.

    Progress is shown on a terminal. At no cost without a wish.
    """
    wishes = [wish for wish in pending() if wish.clean != wish.since]
    if not wishes:
        return 0
    lake, since = Lake.open(), {wish.user_id: wish.since for wish in wishes}
    _drop_scratch(lake)
    hits = _search(list(all_parts(lake)), since)
    for wish in wishes:
        forgotten.note(wish, _found(hits, wish.user_id))
    for part, _ in tqdm(hits, desc="remove", unit="file", disable=None):
        part.drop(since)
    for wish in wishes:
        forgotten.cleaned(wish)
    return len(wishes)


@alone("online")
def remove_online(clock: Callable[[], datetime] = utc_now) -> list[ForgetReceipt]:
    """Remove the users whose wishes the lake is clean of from the online store; the receipts.

    Raises StepFailed when the store cannot be written.
    """
    from pipeline.online import forget_users, stored_of

    wishes = [wish for wish in pending() if wish.clean == wish.since]
    if not wishes:
        return []
    user_ids = [wish.user_id for wish in wishes]
    stored = stored_of(user_ids)
    for wish in wishes:
        views = {f"online/{view}": {view: 1} for view in stored[wish.user_id]}
        forgotten.note(wish, views)
    forget_users(user_ids)
    return [receipt for wish in wishes if (receipt := _finished(wish, clock))]


def forget(
    user_ids: Iterable[str], *, clock: Callable[[], datetime] = utc_now
) -> tuple[dict[str, str], list[ForgetReceipt]]:
    """Forget users, and those of pending wishes; the request of each user, and all receipts.

    Waits for steps that write the lake or the online store now.
    """
    requests = {user_id: forgotten.ask(user_id, clock=clock).request for user_id in user_ids}
    remove_from_lake()
    return requests, remove_online(clock)


def _finished(wish: Wish, clock: Callable[[], datetime]) -> ForgetReceipt | None:
    """The receipt of a wish that is carried out; None where it was asked for anew meanwhile."""
    noted = forgotten.as_it_stands(wish)
    if noted.since != wish.since:
        return None
    receipt = ForgetReceipt.of(noted, clock())
    receipt.write()
    return receipt if forgotten.finish(wish) else None


def _search(parts: Sequence[Part], since: Since) -> list[tuple[Part, dict[str, int]]]:
    """The parts that hold rows of users, in their order, with the rows of each user."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(lambda part: part.found(since), parts)
        bar = tqdm(found, total=len(parts), desc="search", unit="file", disable=None)
        return [(part, rows) for part, rows in zip(parts, bar, strict=True) if rows]


def _found(hits: Iterable[tuple[Part, dict[str, int]]], user_id: str) -> Found:
    found: Found = {}
    for part, rows in hits:
        if user_id in rows:
            found.setdefault(part.place, {})[part.path] = rows[user_id]
    return found


def _drop_scratch(lake: Lake) -> None:
    """Remove what serves one run alone: dbt's tables, and the files of killed writers."""
    config = settings()
    for path in (config.duckdb_path, Path(f"{config.duckdb_path}.wal")):
        path.unlink(missing_ok=True)
    shutil.rmtree(config.home / "spark", ignore_errors=True)
    for file in lake.every_file():
        if file.endswith(".tmp"):
            lake.fs.rm_file(file)
