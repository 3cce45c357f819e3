from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nearline.domains import load_domain
from nearline.identity import keyed_hash
from nearline.intake import Accepted
from nearline.sequence import History
from serving.users import LiveEvent, LiveEvents, Recent, merged

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def event(event_id: str, item: str | None, seconds: int = 0, **changes: Any) -> Accepted:
    at = NOON + timedelta(seconds=seconds)
    fields = {"user_id": "ann", "event_type": "play", "told_ts": at, "received_ts": at}
    return Accepted(event_id=event_id, item_id=item, source="api", **(fields | changes))


def live_events(length: int = 3, hours: int = 2, domain: str = "entertainment") -> LiveEvents:
    return LiveEvents(load_domain(domain), length=length, hours=hours)


STORED = History(["a", "b"], ["play", "rating"], [10, 20], [0.0, 4.0])


@pytest.mark.parametrize(
    ("live", "expected"),
    [
        ([], "ab"),
        ([LiveEvent(30, "e", "c", "play")], "abc"),
        ([LiveEvent(20, "e", "b", "rating")], "ab"),
        ([LiveEvent(20, "e", "b", "play")], "abb"),
        ([LiveEvent(21, "e", "b", "rating")], "abb"),
        ([LiveEvent(15, "e", "c", "play")], "acb"),
        ([LiveEvent(20, "e", "b", "rating"), LiveEvent(20, "f", "b", "rating")], "abb"),
        ([LiveEvent(n, "e", "c", "play") for n in (30, 40, 50)], "bccc"),
    ],
)
def test_what_both_hold_counts_once(live: list[LiveEvent], expected: str) -> None:
    found = merged(STORED, live, 4)
    assert "".join(found.item_ids) == expected
    assert list(found.event_ts) == sorted(found.event_ts)
    assert STORED.event_ts == [10, 20]


def test_values_stay_with_their_events() -> None:
    live = [LiveEvent(20, "e", "b", "rating", 5.0), LiveEvent(15, "f", "c", "play", 0.7)]
    assert list(merged(STORED, live, 4).values) == [0.0, 0.7, 4.0]
    kept = live_events()
    kept.add([event("e1", "i1", value=0.3), event("e2", "i2")], accepted=NOON)
    assert [e.value for e in kept.of("ann").events] == [0.3, 0.0]


def test_two_nothings_are_nothing() -> None:
    assert merged(History((), (), (), ()), [], 4) == History((), (), (), ())


def test_the_newest_events_are_kept_in_their_order() -> None:
    live = live_events()
    for n in (5, 1, 4, 2, 3):
        live.add([event(f"e{n}", f"i{n}", seconds=n, event_type="comment")], accepted=NOON)
    assert [e.item_id for e in live.of("ann").events] == ["i3", "i4", "i5"]
    assert live.of("bob").events == ()


def test_what_hides_its_item_always_is_kept_beyond_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.users.TAKEN_ITEMS", 2)
    live = live_events()
    kinds = ["play", "comment", "rating", "play", "comment", "comment", "comment"]
    for n, kind in enumerate(kinds):
        live.add([event(f"e{n}", f"i{n}", seconds=n, event_type=kind)], accepted=NOON)
    assert [e.item_id for e in live.of("ann").events] == ["i2", "i3", "i4", "i5", "i6"]


def test_only_what_belongs_in_a_sequence_is_kept() -> None:
    live = live_events(domain="commerce")
    live.add(
        [
            event("e1", None, event_type="search"),
            event("e2", "i", event_type="unheard"),
            event("e3", "i", event_type="view"),
        ],
        accepted=NOON,
    )
    assert [e.event_id for e in live.of("ann").events] == ["e3"]


def test_users_are_forgotten_after_their_hours() -> None:
    live = live_events(hours=2)
    live.add([event("e1", "i")], accepted=NOON)
    live.add([event("e2", "i", user_id="bob")], accepted=NOON + timedelta(hours=1))
    live.expire(NOON + timedelta(hours=2, seconds=1))
    assert live.of("ann").events == ()
    assert live.of("bob").accepted == NOON + timedelta(hours=1)


@pytest.mark.usefixtures("home")
def test_a_hash_tells_whose_past_is_dropped_of_those_who_were_away_too() -> None:
    live, hours = live_events(), 3
    live.add([event("e1", "i1"), event("e2", "i2", user_id="bob")], accepted=NOON)
    live.hash_new()
    later = NOON + timedelta(hours=hours)
    live.expire(later)
    live.hash_new()
    for n, user_id in enumerate(("ann", "bob", "eve")):
        live.add([event(f"f{n}", "i3", hours * 3600 + n, user_id=user_id)], accepted=later)
    hashes = {keyed_hash("forgotten", user_id) for user_id in ("ann", "bob", "nobody")}
    live.forget(dict.fromkeys(hashes, later + timedelta(seconds=1)))
    assert live.of("ann") == Recent()
    assert [e.event_id for e in live.of("bob").events] == ["f1"]
    assert [e.event_id for e in live.of("eve").events] == ["f2"]
