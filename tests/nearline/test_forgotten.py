"""Who is forgotten stays forgotten: at the door, in the journals, and whatever is loaded again."""

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from nearline.domains import load_domain
from nearline.intake import (
    Accepted,
    Follower,
    Forgotten,
    Impression,
    ImpressionLog,
    Journal,
    accepted_events,
    blanking,
    close_hours,
)
from nearline.intake import forgotten as wishes
from nearline.intake.blanking import journal_files
from nearline.intake.impressions import IMPRESSION_SCHEMA, IMPRESSIONS, close_impressions
from nearline.intake.raw import merge_raw
from nearline.lake import RAW, Lake
from nearline.schema import RAW_SCHEMA, USER_ID
from nearline.settings import settings
from nearline.windows import HOUR, Window

T0 = datetime(2026, 3, 1, 10, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
WINDOW = Window(T0, T0 + HOUR)
pytestmark = pytest.mark.usefixtures("home")


class World:
    """An intake with a clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = T0 + 30 * MINUTE

    def clock(self) -> datetime:
        return self.now

    def journal(self) -> Journal:
        domain = load_domain("entertainment")
        return Journal(settings().intake, domain, late_hours=48, clock=self.clock)

    def log(self) -> ImpressionLog:
        return ImpressionLog(settings().intake / "impressions", clock=self.clock)

    def ask(self, user_id: str) -> wishes.Wish:
        return wishes.ask(user_id, clock=self.clock)


@pytest.fixture
def world() -> World:
    return World()


def play(event_id: str, user_id: str = "ann", at: datetime = T0, **given: Any) -> dict[str, Any]:
    fields = {"event_id": event_id, "user_id": user_id, "item_id": "i", "event_type": "comment"}
    return fields | {"event_ts": at.isoformat()} | given


def shown(user_id: str | None) -> Impression:
    return Impression("r", "user", "v1", "live", ["i"], [1.0], ["encoder"], user_id=user_id)


def test_a_wish_counts_until_it_is_carried_out_and_after(world: World) -> None:
    follower = Forgotten(wishes.forgotten_root())
    assert (follower.since("ann"), follower.hidden("ann")) == (None, False)
    wish = world.ask("ann")
    for known in (Forgotten.load(), follower):
        known.follow()
        assert (known.since("ann"), known.hidden("ann")) == (world.now, True)
        assert (known.since("bob"), known.hidden("bob")) == (None, False)
    assert wishes.pending() == [wish]
    world.now += MINUTE
    assert wishes.finish(wish)
    follower.follow()
    assert (follower.since("ann"), follower.hidden("ann")) == (T0 + 30 * MINUTE, False)
    assert wishes.pending() == []
    kept = b"".join(path.read_bytes() for path in settings().home.rglob("*") if path.is_file())
    assert b"ann" not in kept


def test_who_asks_again_is_forgotten_up_to_then_by_one_request(world: World) -> None:
    first = world.ask("ann")
    world.now += MINUTE
    again = world.ask("ann")
    assert (again.request, again.since) == (first.request, world.now)
    assert not wishes.finish(first)
    assert Forgotten.load().hidden("ann")
    assert wishes.finish(again)
    assert not Forgotten.load().hidden("ann")
    world.now += MINUTE
    assert world.ask("ann").request != first.request
    assert Forgotten.load().hidden("ann")


def test_a_wish_reads_no_file_of_other_users(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for user_id in ("ann", "bob"):
        world.ask(user_id)
    read, read_text = list[str](), Path.read_text

    def reading(path: Path) -> str:
        read.append(read_text(path))
        return read[-1]

    monkeypatch.setattr(Path, "read_text", reading)
    eve = world.ask("eve")
    assert world.ask("eve").request == eve.request
    wishes.note(eve, {"raw": {"a": 1}})
    assert wishes.as_it_stands(eve).found
    assert wishes.finish(eve)
    assert {json.loads(text)["user_id"] for text in read} == {"eve"}


def test_a_wish_that_an_older_version_kept_is_heeded(world: World) -> None:
    first = world.ask("ann")
    folder = wishes.forgotten_root() / "pending"
    [kept] = folder.rglob("*.json")
    body = json.loads(kept.read_text())
    del body["name"]
    kept.unlink()
    (folder / f"{first.request}.json").write_text(json.dumps(body))
    world.now += MINUTE
    again = world.ask("ann")
    assert (again.request, again.since) == (first.request, world.now)
    assert wishes.pending() == [again]
    wishes.note(again, {"raw": {"a": 1}})
    wishes.cleaned(again)
    assert wishes.finish(again)
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_what_a_crash_left_of_a_wish_neither_counts_nor_stays(world: World) -> None:
    first = world.ask("bob")
    with (wishes.forgotten_root() / "wishes.jsonl").open("ab") as torn:
        torn.write(b'{"user": "0123')
    (wishes.forgotten_root() / "pending" / "x.tmp").write_text("ann")
    known = Forgotten.load()
    assert not known.follow()
    second = world.ask("eve")
    assert known.follow()
    assert known.hidden("eve")
    assert known.hidden("bob")
    assert wishes.finish(first)
    left = [path for path in (wishes.forgotten_root() / "pending").rglob("*") if path.is_file()]
    assert [json.loads(path.read_text())["request"] for path in left] == [second.request]


def test_what_is_noted_adds_up_over_runs_that_were_ended_early(world: World) -> None:
    wish = world.ask("ann")
    wishes.note(wish, {"raw": {"a": 2, "b": 1}})
    wishes.note(wish, {"raw": {"b": 1, "c": 4}})
    world.now += MINUTE
    again = world.ask("ann")
    wishes.note(again, {"raw": {"a": 3}})
    wishes.cleaned(wish)
    [noted] = wishes.pending()
    assert noted.found == {
        wish.since.isoformat(): {"raw": {"a": 2, "b": 1, "c": 4}},
        again.since.isoformat(): {"raw": {"a": 3}},
    }
    assert noted.clean == wish.since != noted.since


def test_late_events_of_a_forgotten_user_are_refused_and_not_kept(world: World) -> None:
    journal, other = world.journal(), world.journal()
    world.ask("ann")
    rows = [
        play("late"),
        play("much-too-late", at=T0 - 100 * HOUR),
        play("broken", event_type="unheard"),
        play("bob", "bob"),
        play("new", at=world.now),
    ]
    for door in (journal, other):
        statuses = [receipt.status for receipt in door.append(rows)]
        assert statuses == ["refused", "refused", "refused", "accepted", "accepted"]
    reason = journal.append([play("late")])[0].reason
    assert reason == f"user_id: this user was forgotten later than {T0.isoformat()}"
    close_hours(WINDOW, clock=world.clock)
    raw = Lake.open().read(RAW, schema=RAW_SCHEMA)
    assert sorted({*raw["event_id"].to_pylist()}) == ["bob", "new"]


@pytest.mark.parametrize("appended_before", [False, True])
def test_a_door_that_was_idle_for_hours_knows_who_was_forgotten(
    world: World, appended_before: bool
) -> None:
    journal = world.journal()
    if appended_before:
        journal.append([play("before")])
    world.now += HOUR
    wish = world.ask("ann")
    world.now += 5 * HOUR
    [receipt] = journal.append([play("late", at=wish.since - MINUTE)])
    assert receipt.status == "refused"


def test_what_is_loaded_again_stays_away(world: World) -> None:
    rows = [
        {"event_id": f"{user}{n}", "user_id": user, "event_ts": ts.isoformat(), "received_ts": ts}
        for user in ("ann", "bob", None)
        for n, ts in enumerate([T0, T0 + 40 * MINUTE])
    ]
    table = pa.Table.from_pylist(rows, schema=RAW_SCHEMA)
    wishes.finish(world.ask("ann"))
    merge_raw(Lake.open(), table)
    there = Lake.open().read(RAW, schema=RAW_SCHEMA)
    assert there[USER_ID].to_pylist() == [None, "bob", None, "ann", "bob"]


def ids(rows: Iterable[tuple[datetime, Accepted]]) -> list[str]:
    return [event.event_id for _, event in rows]


def test_lines_of_journals_become_blanks_while_others_write_and_follow(world: World) -> None:
    journal, log = world.journal(), world.log()
    events = Follower(settings().intake, accepted_events, since=T0)
    journal.append([play("a1"), play("b1", "bob"), {"user_id": {"is": "ann"}}, ["ann"]])
    for user_id in ("ann", "bob", None):
        log.add(shown(user_id))
    assert ids(events.poll(world.now)) == ["a1", "b1"]
    world.now += MINUTE
    wish = world.ask("ann")
    world.now += MINUTE
    journal.append([play("a2", at=world.now)])
    since = {"ann": wish.since, "eve": wish.since}
    parts = list(journal_files())
    assert [(p.place, p.found(since)) for p in parts] == [
        ("intake", {"ann": 3}),
        ("intake/impressions", {"ann": 1}),
    ]
    sizes = [Path(part.path).stat().st_size for part in parts]
    for part in parts:
        part.drop(since)
    assert sizes == [Path(part.path).stat().st_size for part in parts]
    assert [part.found(since) for part in parts] == [{}, {}]
    assert ids(events.poll(world.now)) == ["a2"]
    journal.append([play("b2", "bob")])
    assert ids(events.poll(world.now)) == ["b2"]
    whole = Follower(settings().intake, accepted_events, since=T0)
    assert ids(whole.poll(world.now)) == ["b1", "a2", "b2"]


def test_what_a_crash_tore_off_goes_too(world: World) -> None:
    journal = world.journal()
    journal.append([play("b1", "bob")])
    journal.close()
    [part] = journal_files()
    with open(part.path, "ab") as torn:
        torn.write(b'{"event_id":"a1","user_id":"ann","it')
    world.now += MINUTE
    since = {"ann": world.now}
    assert part.found(since) == {"ann": 1}
    part.drop(since)
    assert b"ann" not in Path(part.path).read_bytes()
    assert json.loads(Path(part.path).read_bytes().split(b"\n")[0])["event_id"] == "b1"


def while_searched(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let something happen while lines are searched for the first time."""
    acts, owners = [act], blanking.owners

    def search(*given: Any) -> pa.Array:
        if acts:
            acts.pop()()
        return owners(*given)

    monkeypatch.setattr(blanking, "owners", search)


def test_nobody_waits_while_lines_are_searched_and_what_comes_meanwhile_goes_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = world.log()
    for user_id in ("ann", "bob"):
        log.add(shown(user_id))
    [part] = journal_files()
    since = {"ann": world.now + MINUTE}
    with ThreadPoolExecutor(1) as pool:
        while_searched(monkeypatch, lambda: pool.submit(log.add, shown("ann")).result(timeout=20))
        part.drop(since)
    blank, bob, second, end = Path(part.path).read_bytes().split(b"\n")
    assert (blank.strip(), second.strip(), end) == (b"", b"", b"")
    assert b"bob" in bob
    assert part.found(since) == {}


def test_a_journal_that_is_cut_while_it_is_searched_stays_as_short(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = world.log()
    log.add(shown("bob"))
    [part] = journal_files()
    kept = Path(part.path).read_bytes()
    log.add(shown("ann"))
    while_searched(monkeypatch, lambda: os.truncate(part.path, len(kept)))
    part.drop({"ann": world.now + MINUTE})
    assert Path(part.path).read_bytes() == kept


@pytest.mark.parametrize(
    "damage", [lambda line: line[:-9], lambda line: line.replace(b"api:refused", b"\0" * 11)]
)
def test_a_damaged_line_goes_that_names_the_user(
    world: World, damage: Callable[[bytes], bytes]
) -> None:
    journal = world.journal()
    journal.append([["ann"], play("b1", "bob")])
    journal.close()
    [part] = journal_files()
    odd, bob, _ = Path(part.path).read_bytes().split(b"\n")
    odd = damage(odd)
    Path(part.path).write_bytes(b"\n".join((odd, bob, b"")))
    since = {"ann": world.now + MINUTE}
    assert part.found(since) == {"ann": 1}
    part.drop(since)
    assert Path(part.path).read_bytes() == b"\n".join((b" " * len(odd), bob, b""))


def test_impressions_of_a_forgotten_user_do_not_reach_the_lake(world: World) -> None:
    log = world.log()
    log.add(shown("ann"))
    log.add(shown("bob"))
    world.now += MINUTE
    world.ask("ann")
    world.now += MINUTE
    log.add(shown("ann"))
    close_impressions(Lake.open(), WINDOW, world.now)
    found = Lake.open().read(IMPRESSIONS, schema=IMPRESSION_SCHEMA)
    assert found[USER_ID].to_pylist() == ["bob", "ann"]


def test_a_list_that_was_asked_for_before_the_wish_is_not_logged_after_it(world: World) -> None:
    log, asked = world.log(), world.now
    log.add(shown("bob"), asked=asked)
    world.now += MINUTE
    world.ask("ann")
    world.now += MINUTE
    assert not log.add(shown("ann"), asked=asked)
    assert log.add(shown("bob"), asked=asked)
    assert log.add(shown(None), asked=asked)
    assert log.add(shown("ann"), asked=world.now)
    close_impressions(Lake.open(), WINDOW, world.now)
    found = Lake.open().read(IMPRESSIONS, schema=IMPRESSION_SCHEMA)
    assert found[USER_ID].to_pylist() == ["bob", "bob", None, "ann"]
