"""A user's state at a request: the stored sequence, and what was accepted since.

The stored sequence ends with the last materialized hour; live events are kept here from the moment
they were accepted until their hour is online. Both hold an event for a while, so they are merged by
(time, item, type): what both have counts once. The live events are always looked at first: an hour
that is let go of between the two reads is in what the store says then.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from sys import intern
from threading import Lock
from typing import NamedTuple

from nearline.domains import Domain
from nearline.intake import Accepted, Forgotten
from nearline.reach import TAKEN_ITEMS
from nearline.sequence import History, microseconds
from nearline.windows import hour_number
from serving.features import (
    EMPTY,
    FeatureReader,
    Neighbours,
    Profile,
    StoredVector,
    StoreFailed,
    StoreLate,
    UserFeatures,
)
from serving.hashed import HashedUsers
from serving.reasons import Reason

_FEW = 1000
"""So many users who are gone stay hashed."""


class LiveEvent(NamedTuple):
    """An accepted event as the model reads it, in the order of a sequence."""

    ts_us: int
    event_id: str
    item_id: str
    event_type: str
    value: float = 0.0


@dataclass(frozen=True)
class Recent:
    """The live events of one user, oldest first, and when the newest of them was accepted."""

    events: tuple[LiveEvent, ...] = ()
    accepted: datetime | None = None


@dataclass(slots=True)
class _Kept:
    """What is kept of one user and hour; `new` is not among the `events` yet."""

    events: tuple[LiveEvent, ...] = ()
    new: tuple[LiveEvent, ...] = ()


class LiveEvents:
    """The newest accepted events of each user, kept for some hours. Safe from many threads.

    Only what belongs in a sequence is kept: events with an item, of a type with weight in the
    domain file; the hourly sequences follow the same rule. So do those that hide their item always,
    which are kept beyond the `length` newest. Of what is added, users are put in order when they
    are asked for, or have `length` more: most of those that a start reads are not asked for soon.

    Events lie by the hour in which they arrived, so that an hour goes as if it had never been read:
    what is left is what a worker has that starts with the next one. When a user's last event was
    accepted is known for all the hours, though: a vector may be older than it.

    `since` is set where what was accepted before is not here, as the online store has it.
    """

    def __init__(self, domain: Domain, *, length: int, hours: int) -> None:
        self._telling, self._taking = set(domain.telling), set(domain.taking)
        self._length = length
        self._kept_for = timedelta(hours=hours)
        self._accepted: OrderedDict[str, datetime] = OrderedDict()  # the last one, oldest first
        self._hours: dict[int, dict[str, _Kept]] = {}  # of arrival, oldest first
        self._hashed = HashedUsers()  # those of `_accepted`, and some who are gone
        self._lock = Lock()
        self.since = datetime.min.replace(tzinfo=UTC)

    def add(self, events: Iterable[Accepted], *, accepted: datetime) -> None:
        """Take events that were accepted at `accepted`."""
        added = [
            (hour_number(event.received_ts), event.user_id, _live(event, event.item_id))
            for event in events
            if event.item_id is not None and event.event_type in self._telling
        ]
        with self._lock:
            for hour, user_id, event in added:
                self._add(hour, intern(user_id), event, accepted)

    def expire(self, now: datetime) -> None:
        """Drop the users whose time is over, and the hours."""
        oldest = now - self._kept_for
        with self._lock:
            while self._accepted:
                user_id, accepted = next(iter(self._accepted.items()))
                if accepted >= oldest:
                    break
                del self._accepted[user_id]
                for users in self._hours.values():
                    users.pop(user_id, None)
        for hour in [hour for hour in self._hours if hour < hour_number(oldest)]:
            self._drop(hour, set())

    def let_go(self, before: datetime, *, but: Callable[[str], bool]) -> None:
        """Drop what arrived in the hours before then, `but` that of some users."""
        for hour, users in self._hours.items():
            if hour < hour_number(before):
                self._drop(hour, {user_id for user_id in list(users) if but(user_id)})

    def of(self, user_id: str) -> Recent:
        """What is kept of a user."""
        with self._lock:
            found = [users[user_id] for users in self._hours.values() if user_id in users]
            hours = [self._ordered(kept) for kept in found]
            accepted = self._accepted.get(user_id)
        events = hours[0] if len(hours) == 1 else self._newest(chain.from_iterable(hours))
        return Recent(events, accepted)

    def forget(self, since: Mapping[str, datetime]) -> None:
        """Drop what users did before the moment that `since` has for their keyed hash, if any.

        What is added meanwhile is judged before it comes here.
        """
        # Nobody is to wait for the lock while users are looked up.
        for user_id, moment in self._hashed.told(since).items():
            with self._lock:
                self._forget(user_id, microseconds(moment))

    def hash_new(self) -> None:
        """Hash the users that came since the last call, so that `forget` need not."""
        self._hashed.hash_waiting()
        with self._lock:
            if len(self._hashed) > 2 * len(self._accepted) + _FEW:
                self._hashed.keep(self._accepted)

    def _forget(self, user_id: str, before_us: int) -> None:
        theirs = [users for users in self._hours.values() if user_id in users]
        for users in theirs:
            kept = users[user_id]
            kept.events = tuple(e for e in self._ordered(kept) if e.ts_us >= before_us)
            if not kept.events:
                del users[user_id]
        if not any(user_id in users for users in theirs):
            self._accepted.pop(user_id, None)

    def _drop(self, hour: int, stay: set[str]) -> None:
        """Drop what arrived in an hour, but that of the users who `stay`."""
        with self._lock:
            users = self._hours.get(hour, {})
            left = {user_id: users[user_id] for user_id in stay if user_id in users}
            self._put(hour, left)
        # One by one, so that other threads go on: all at once would keep them waiting.
        while users:
            users.popitem()

    def _put(self, hour: int, users: dict[str, _Kept]) -> None:
        # In a dictionary of its own, as other threads may be going through the old one.
        hours = self._hours | {hour: users}
        self._hours = {hour: hours[hour] for hour in sorted(hours) if hours[hour]}

    def _add(self, hour: int, user_id: str, event: LiveEvent, accepted: datetime) -> None:
        if user_id not in self._accepted:
            self._hashed.add(user_id)
        self._accepted[user_id] = accepted
        self._accepted.move_to_end(user_id)
        if hour not in self._hours:
            self._put(hour, {user_id: _Kept()})
        users = self._hours[hour]
        kept = users.get(user_id)
        if kept is None:
            kept = users[user_id] = _Kept()
        kept.new = (*kept.new, event)
        if len(kept.new) >= self._length:
            self._ordered(kept)

    def _ordered(self, kept: _Kept) -> tuple[LiveEvent, ...]:
        """All that is kept of a user and hour, oldest first, the new events too."""
        if kept.new:
            kept.events, kept.new = self._newest((*kept.events, *kept.new)), ()
        return kept.events

    def _newest(self, events: Iterable[LiveEvent]) -> tuple[LiveEvent, ...]:
        """Those of the events that are kept, oldest first; of each id the one that came first."""
        first: dict[str, LiveEvent] = {}
        for event in events:
            first.setdefault(event.event_id, event)
        found = sorted(first.values())
        taking = [e for e in found[: -self._length] if e.event_type in self._taking]
        return (*taking[-TAKEN_ITEMS:], *found[-self._length :])


def _live(event: Accepted, item_id: str) -> LiveEvent:
    # Many events share an item and a type: each text is in memory once.
    what = intern(item_id), intern(event.event_type)
    return LiveEvent(microseconds(event.event_ts), event.event_id, *what, event.value or 0.0)


@dataclass(frozen=True)
class UserState:
    """What is known of a user now.

    `vector` is the pushed vector, whatever its release; `stored` is the same if it knows all these
    events; `taken` are the items of events that hide theirs always. `trouble` says why the online
    store has no part in this, or not all of its part; `features` up to when each of its views was
    known. `user_id` is whom the online store may be asked about, if anybody. `near` is what the
    same users touch as the newest items, where it was read.
    """

    history: History
    vector: StoredVector | None = None
    stored: StoredVector | None = None
    trouble: Reason | None = None
    features: Mapping[str, datetime] = field(default_factory=dict)
    user_id: str | None = None
    taken: frozenset[str] = frozenset()
    near: Mapping[str, Neighbours] = field(default_factory=dict)

    @property
    def last_us(self) -> int | None:
        """Time of the newest event, microseconds since 1970."""
        return self.history.event_ts[-1] if self.history.event_ts else None


class Users:
    """States of users, from the online store and the live events.

    The online store is not read of a user who asked to be forgotten, until it is rid of them.
    """

    def __init__(
        self,
        reader: FeatureReader,
        live: LiveEvents,
        forgotten: Forgotten,
        domain: Domain,
        *,
        length: int,
    ) -> None:
        self._reader = reader
        self._taking = set(domain.taking)
        self._live = live
        self._forgotten = forgotten
        self._length = length

    def profile(self, user_id: str) -> dict[str, Profile]:
        """The features of a user by view. Raises StoreLate and StoreFailed."""
        return {} if self._forgotten.hidden(user_id) else self._reader.profile(user_id)

    def state(self, user_id: str) -> UserState:
        """The state of a user, with or without the online store; a stranger's history is empty."""
        return self.states([user_id])[user_id]

    def states(self, user_ids: Sequence[str]) -> dict[str, UserState]:
        """The state of each user; the online store is read for all of them together."""
        # Before the store is read: what is let go of meanwhile is not here, but there.
        live = {user_id: self._live.of(user_id) for user_id in user_ids}
        readable = [user_id for user_id in user_ids if not self._forgotten.hidden(user_id)]
        found: dict[str, UserFeatures] = {}
        trouble = None
        try:
            found = self._reader.users(readable)
        except (StoreLate, StoreFailed) as error:
            trouble = error.reason
        nothing = UserFeatures()
        states = {user: self._state(live[user], found.get(user, nothing)) for user in user_ids}
        return states | {
            user_id: replace(states[user_id], trouble=trouble, user_id=user_id)
            for user_id in readable
        }

    def _state(self, recent: Recent, features: UserFeatures) -> UserState:
        """The state of a user of whom this is live, and the online store has these features."""
        history = merged(features.history, recent.events, self._length)
        vector = features.vector
        stored = vector if vector and self._covers(vector, history, recent) else None
        lately = (e.item_id for e in recent.events if e.event_type in self._taking)
        taken = features.taken.union(lately)
        return UserState(history, vector, stored, features=features.times, taken=taken)

    def _covers(self, stored: StoredVector, history: History, recent: Recent) -> bool:
        """Whether no event happened, and none was accepted, since the vector was made."""
        happened = history.event_ts[-1] if history.event_ts else None
        return (
            (happened is None or happened < microseconds(stored.ts))
            and (recent.accepted is None or recent.accepted < stored.ts)
            # Of a time that is not here, nobody can tell whether a late event was accepted.
            and self._live.since <= stored.ts
        )


def merged(stored: History, live: Sequence[LiveEvent], length: int) -> History:
    """The newest `length` events of both, oldest first; what both hold counts once.

    An event is told by (time, item, type); one that happened twice at once, in one source, stays.
    """
    columns = stored.event_ts, stored.item_ids, stored.event_types, stored.values
    there = list(zip(*columns, strict=True))
    unseen = Counter(event[:3] for event in there) if live else Counter()
    for event in live:
        key = (event.ts_us, event.item_id, event.event_type)
        if unseen[key] > 0:
            unseen[key] -= 1
        else:
            there.append((*key, event.value))
    # Sorting by time alone is stable: events of one moment keep their sources' order.
    newest = sorted(there, key=lambda event: event[0])[-length:]
    if not newest:
        return EMPTY
    times, items, types, values = zip(*newest, strict=True)
    return History(items, types, times, values)
