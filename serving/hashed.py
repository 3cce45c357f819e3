"""Users by the keyed hashes that wishes to be forgotten tell: each is hashed once.

Hashing takes 3 µs a user: to go through all users for every wish would hold up the requests that
heed it. Eight bytes are kept of a hash, and checked by the whole where they are met.
"""

from array import array
from collections import deque
from collections.abc import Collection, Mapping
from datetime import datetime
from threading import Lock

import numpy as np

from nearline.identity import keyed_hash

_DIGITS = 16
"""Of a hash, in eight bytes."""


class HashedUsers:
    """Users that may be asked for by their hashes. Safe from many threads.

    A user may be added again; `keep` lets go of those who are gone.
    """

    def __init__(self) -> None:
        self._waiting: deque[str] = deque()
        self._users: list[str] = []
        self._hashes = array("Q")
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._users) + len(self._waiting)

    def add(self, user_id: str) -> None:
        """Add a user, who is hashed later."""
        self._waiting.append(user_id)

    def hash_waiting(self) -> None:
        """Hash those who were added, so that the next wish finds it done."""
        with self._lock:
            self._hash_waiting()

    def told(self, since: Mapping[str, datetime]) -> dict[str, datetime]:
        """Those of the users whom hashes of `since` mean, with their moments."""
        with self._lock:
            self._hash_waiting()
            wanted = np.array([_head(each) for each in since], np.uint64)
            places = np.flatnonzero(np.isin(np.array(self._hashes, np.uint64), wanted))
            users = {self._users[place] for place in places}
        hashes = {user: keyed_hash("forgotten", user) for user in users}
        return {user: since[each] for user, each in hashes.items() if each in since}

    def keep(self, users: Collection[str]) -> None:
        """Let go of all others."""
        with self._lock:
            self._hash_waiting()
            kept = {u: h for u, h in zip(self._users, self._hashes, strict=True) if u in users}
            self._users, self._hashes = list(kept), array("Q", kept.values())

    def _hash_waiting(self) -> None:
        while self._waiting:
            user = self._waiting.popleft()
            self._hashes.append(_head(keyed_hash("forgotten", user)))
            self._users.append(user)


def _head(hashed: str) -> int:
    return int(hashed[:_DIGITS], 16)
