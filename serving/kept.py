"""Lists that are asked for again, answered from memory while nothing has happened since.

A list is kept for a minute under the request that asked for it. It is given again while the
release, the catalogue, the promotions that run and the user's live events are what it was made
from: an event accepted now, or a wish to be forgotten, changes the next answer all the same. What
the online store knows of a user changes by the hour, so a minute makes no difference there. Items
that expired meanwhile, a store in trouble, and whatever the framework would have to judge go the
whole way. A list that was drawn by lot is not kept: the next request draws anew by its own id, so
that the log holds as many draws as lists, each with the chance that it had.

Kept are the bytes that were sent and what the log and the figures want to know, up to so many
bytes; a list whose time is over goes by itself, and those of a user who is forgotten at once.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from threading import Lock
from typing import Any, NamedTuple

from starlette.types import Scope

from nearline.identity import keyed_hash
from nearline.intake import Impression
from nearline.promotions import Promotion
from nearline.sequence import microseconds
from serving.answers import Answer
from serving.experiments import Choice
from serving.schema import ItemList
from serving.users import LiveEvent

MOST_BYTES = 64 << 20
"""What all lists together may take; the oldest go first."""

_BESIDE = 3 << 10
"""What a list takes beside its text, about, in bytes: what it was made from and what is logged."""

_OWN = {"request_id", "state_age_seconds"}
"""What is told anew in each answer."""

Question = tuple[str, bytes]
"""A path and its query, as sent."""


class Basis(NamedTuple):
    """What a user's list is made from, beside what the online store has of the user.

    `forgotten_since` is the moment before which the user is forgotten, if there is one.
    """

    choice: Choice
    user_id: str
    events: tuple[LiveEvent, ...]
    promotions: tuple[Promotion, ...] = ()
    forgotten_since: datetime | None = None


@dataclass(frozen=True)
class Kept:
    """A list as it was answered at `made` on a `route`; `told` is its JSON without `_OWN`.

    The `answer` has no items: what must be known of them is in `shown`. `user` is the keyed hash by
    which the user's wish to be forgotten is told.
    """

    user: str
    made: datetime
    basis: Basis
    answer: Answer
    shown: Impression
    told: bytes
    route: Any

    @classmethod
    def of(
        cls, listed: ItemList, answer: Answer, shown: Impression, *, basis: Basis, **made: Any
    ) -> "Kept":
        """What is kept of an answer: `made` when, from which `basis`, on which `route`."""
        told, answer = listed.model_dump_json(exclude=_OWN).encode(), replace(answer, items=[])
        user = keyed_hash("forgotten", basis.user_id)
        return cls(user=user, answer=answer, shown=shown, told=told, basis=basis, **made)

    def body(self, request_id: str, now: datetime) -> bytes:
        """The answer to another request."""
        age = self.answer.state_age_seconds
        older = "null" if age is None else repr(age + (now - self.made).total_seconds())
        own = f'{{"request_id":"{request_id}","state_age_seconds":{older},'
        return own.encode() + self.told.removeprefix(b"{")

    def holds(self, basis: Basis, now: datetime) -> bool:
        """Whether a list made now, from `basis`, would be the same."""
        if basis != self.basis:
            return False
        now_us, catalogue = microseconds(now), basis.choice.pinned.catalogue
        return all(catalogue.shown(item_id, now_us) for item_id in self.shown.item_ids)


class KeptLists:
    """The lists of the last seconds, by the request that asked for them. Safe from many threads."""

    def __init__(self, *, seconds: float) -> None:
        self._kept_for = timedelta(seconds=seconds)
        self._lists: OrderedDict[Question, Kept] = OrderedDict()  # oldest first
        self._bytes = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._lists)

    def keep(self, scope: Scope, kept: Kept) -> None:
        """Keep a list for the request of `scope`, in place of an older one."""
        if not self._kept_for:
            return
        question = _question(scope)
        with self._lock:
            if question in self._lists:
                self._drop(question)
            self._lists[question] = kept
            self._bytes += _size(question, kept)
            while self._bytes > MOST_BYTES:
                self._drop(next(iter(self._lists)))

    def find(self, scope: Scope, now: datetime) -> Kept | None:
        """What was kept for such a request a moment ago."""
        with self._lock:
            kept = self._lists.get(_question(scope))
        return kept if kept and now - kept.made < self._kept_for else None

    def expire(self, now: datetime) -> None:
        """Drop the lists whose time is over."""
        with self._lock:
            while self._lists:
                question, oldest = next(iter(self._lists.items()))
                if now - oldest.made < self._kept_for:
                    return
                self._drop(question)

    def forget(self, since: Mapping[str, datetime]) -> None:
        """Drop the lists of users who were forgotten after them, by the keyed hashes of users."""
        with self._lock:
            for question, kept in list(self._lists.items()):
                moment = since.get(kept.user, kept.basis.forgotten_since)
                if kept.basis.forgotten_since != moment:
                    self._drop(question)

    def _drop(self, question: Question) -> None:
        self._bytes -= _size(question, self._lists.pop(question))


def _size(question: Question, kept: Kept) -> int:
    path, query = question
    return len(path) + len(query) + len(kept.told) + _BESIDE


def _question(scope: Scope) -> Question:
    return scope["path"], scope["query_string"]
