"""Users are found by the hashes of wishes, and hashed once."""

from datetime import UTC, datetime, timedelta

import pytest

from nearline.identity import Purpose, keyed_hash
from serving import hashed
from serving.hashed import HashedUsers

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
pytestmark = pytest.mark.usefixtures("home")


def wish(*user_ids: str) -> dict[str, datetime]:
    """Since when users are forgotten, each a minute later than the one before."""
    hashes = [keyed_hash("forgotten", user_id) for user_id in user_ids]
    return {each: NOON + place * MINUTE for place, each in enumerate(hashes)}


def users(*user_ids: str) -> HashedUsers:
    found = HashedUsers()
    for user_id in user_ids:
        found.add(user_id)
    return found


def test_users_are_found_whether_they_were_hashed_before_or_not() -> None:
    known = users("ann", "bob")
    known.hash_waiting()
    for user_id in ("eve", "ann"):
        known.add(user_id)
    assert known.told(wish("ann", "nobody", "eve")) == {"ann": NOON, "eve": NOON + 2 * MINUTE}
    assert known.told({}) == HashedUsers().told(wish("ann")) == {}


def test_who_is_gone_is_let_go_of() -> None:
    known = users("ann", "bob", "ann", "eve")
    known.keep({"ann", "eve"})
    assert len(known) == 2
    assert known.told(wish("bob", "ann")) == {"ann": NOON + MINUTE}


def test_a_hash_is_met_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    alike = {"ann": "0" * 31 + "1", "bob": "0" * 31 + "2"}
    monkeypatch.setattr(hashed, "keyed_hash", lambda _, user_id: alike[user_id])
    assert users("ann", "bob").told({alike["bob"]: NOON}) == {"bob": NOON}


def test_a_wish_hashes_nobody_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def hashing(purpose: Purpose, user_id: str) -> str:
        asked.append(user_id)
        return keyed_hash(purpose, user_id)

    monkeypatch.setattr(hashed, "keyed_hash", hashing)
    known = users("ann", "bob", "eve")
    known.hash_waiting()
    del asked[:]
    assert known.told(wish("ann")) == {"ann": NOON}
    assert asked == ["ann"]
