"""Nothing that was answered for is lost, and nothing gets in twice."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from nearline.domains import load_domain
from nearline.errors import BadInput, NotKept
from nearline.intake import (
    Accepted,
    Follower,
    Journal,
    accepted_events,
    close_hours,
    prune_journals,
)
from nearline.intake.files import HourLock
from nearline.intake.forgotten import ask
from nearline.intake.raw import merge_raw
from nearline.lake import RAW, Lake
from nearline.records import Event
from nearline.schema import RAW_SCHEMA
from nearline.windows import HOUR, Window

T0 = datetime(2026, 3, 1, 10, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock(T0 + 30 * MINUTE)


Opener = Callable[[], Journal]


@pytest.fixture
def opened(home: Path, clock: Clock) -> Opener:
    def journal() -> Journal:
        domain = load_domain("entertainment")
        return Journal(home / "intake", domain, late_hours=48, clock=clock)

    return journal


def play(event_id: str, at: datetime = T0, **changes: Any) -> dict[str, Any]:
    row = {
        "event_id": event_id,
        "user_id": "u",
        "item_id": "i",
        "event_type": "play",
        "event_ts": at.isoformat(),
        "value": 0.5,
    }
    return row | changes


def follow(root: Path, since: datetime) -> Follower[Accepted]:
    return Follower(root, accepted_events, since=since)


def recent(journal: Journal, since: datetime) -> Iterator[Accepted]:
    """The accepted events that a journal's files hold since then, each id once."""
    rows = follow(journal.root, since).poll(since + 100 * HOUR)
    events = [event for stamp, event in rows if stamp >= since]
    first = {event.event_id: event for event in reversed(events)}
    return (event for event in events if first[event.event_id] is event)


def assert_same(read: Accepted, event: Event | None) -> None:
    """What live state reads of an event is what was accepted."""
    names = ("event_id", "user_id", "item_id", "event_type", "event_ts", "value")
    assert [getattr(read, name) for name in names] == [getattr(event, name) for name in names]


def raw_rows(window: Window) -> list[dict[str, Any]]:
    return Lake.open().read(RAW, window, schema=RAW_SCHEMA).to_pylist()


def files(home: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in (home / "lake").rglob("*") if p.is_file()}


def test_an_accepted_event_is_answered_kept_and_remembered(opened: Opener, clock: Clock) -> None:
    journal = opened()
    [first] = journal.append([play("a", attributes={"device": "tv"})])
    [again, new] = journal.append([play("a"), play("b")])
    assert (first.status, again.status, new.status) == ("accepted", "duplicate", "accepted")
    assert first.event == Event.model_validate(play("a", attributes={"device": "tv"}))
    assert again.event is None
    assert [e.event_id for e in recent(journal, clock.now - MINUTE)] == ["a", "b"]
    assert_same(next(recent(journal, clock.now)), first.event)
    assert list(recent(journal, clock.now + MINUTE)) == []


def test_a_restart_remembers_ids_for_as_long_as_events_may_be_late(
    opened: Opener, clock: Clock
) -> None:
    opened().append([play("a")])
    clock.now += 48 * HOUR
    assert opened().append([play("a", clock.now)])[0].status == "duplicate"
    clock.now += HOUR
    journal = opened()
    assert journal.append([play("a", clock.now)])[0].status == "accepted"
    assert journal.append([play("a", clock.now)])[0].status == "duplicate"


def test_an_id_is_forgotten_while_the_journal_stays_open(opened: Opener, clock: Clock) -> None:
    journal = opened()
    journal.append([play("a")])
    clock.now += 49 * HOUR
    assert journal.append([play("a", clock.now)])[0].status == "accepted"


def test_within_one_batch_the_first_of_an_id_stands(opened: Opener, clock: Clock) -> None:
    receipts = opened().append([play("a", value=0.1), play("a", value=0.9)])
    assert [r.status for r in receipts] == ["accepted", "duplicate"]
    [event] = recent(opened(), T0)
    assert event.value == 0.1


REFUSED: list[tuple[Any, str]] = [
    (play("r", value=1.5), "value: 1.5 is not from 0 to 1 (watched share)"),
    (play("r", value=None), "value: play needs one"),
    (play("r", item_id=None), "item_id: play needs one"),
    (play("r", event_type="sneeze"), "event_type: 'sneeze' is unknown to this site"),
    (play("r", event_type="comment", value=1e16), "value: 1e+16 is not from -1e+12 to 1e+12"),
    (play("r", event_ts="soon"), "event_ts: Input should be a valid datetime"),
    (play("r", event_ts="2026-03-01T10:36:00Z"), "is in the future"),
    (play("r", event_ts="2026-02-27T09:59:00Z"), "is more than 48 hours ago"),
    (play("r", event_ts="9999-12-31T23:59:59-05:00"), "event_ts: is outside"),
    (play("r", user_id=7), "user_id: must be a text of 1 to 256 characters"),
    (play("r", query="x" * 2001), "query: String should have at most 2000 characters"),
    (play("r", colour="red"), "colour: is not known here"),
    (play("r", attributes=["not", "an object"]), "attributes: Input should be a valid dictionary"),
    (play("r", attributes={"x": float("nan")}), "attributes: cannot be kept as JSON"),
    (play("r", session_id="\ud800"), "session_id: must be a text of 1 to 256 characters"),
    ({"event_id": "r"}, "user_id: Field required; event_type: Field required"),
    ({}, "event_id: Field required"),
    ("just a text", "event: Input should be a valid dictionary"),
    (None, "event: Input should be a valid dictionary"),
    ([play("r")], "event: Input should be a valid dictionary"),
]


@pytest.mark.parametrize(("row", "reason"), REFUSED)
def test_a_refused_row_has_a_reason_and_is_kept(
    row: Any, reason: str, opened: Opener, clock: Clock
) -> None:
    journal = opened()
    for _ in range(2):
        [receipt] = journal.append([row])
        assert receipt.status == "refused"
        assert reason in str(receipt.reason)
    assert list(recent(journal, T0)) == []
    close_hours(Window.of_hour(T0), clock=clock)
    kept = raw_rows(Window.of_hour(T0))
    assert [found["source"] for found in kept] == ["api:refused"] * 2
    assert opened().append([play("r")])[0].status == "accepted"


def test_a_refused_row_keeps_all_that_came(opened: Opener, clock: Clock) -> None:
    odd = play("r", user_id=7, value={"deep": 1}, colour="red", attributes={"device": "tv"})
    opened().append([odd, 5, play("s", user_id=None, attributes={"device": "tv"})], source="replay")
    close_hours(Window.of_hour(T0), clock=clock)
    first, second, third = raw_rows(Window.of_hour(T0))
    assert (first["event_id"], first["user_id"], first["value"]) == ("r", "7", None)
    assert json.loads(first["attributes"]) == {
        "attributes": {"device": "tv"},
        "colour": "red",
        "value": {"deep": 1},
    }
    assert (second["event_id"], second["attributes"]) == (None, "5")
    assert third["attributes"] == '{"device": "tv"}'
    assert third["source"] == "replay:refused"


def test_identical_refused_rows_of_one_batch_stay_apart(opened: Opener, clock: Clock) -> None:
    opened().append([{}, {}, {}])
    assert close_hours(Window.of_hour(T0), clock=clock) == 3


def test_a_clock_that_runs_ahead_a_little_is_put_right(opened: Opener, clock: Clock) -> None:
    journal = opened()
    [receipt] = journal.append([play("a", clock.now + 2 * MINUTE)])
    assert receipt.event is not None
    assert receipt.event.event_ts == clock.now
    [read] = recent(journal, T0)
    assert_same(read, receipt.event)


def test_closing_again_gives_the_same_bytes_and_keeps_what_was_loaded(
    opened: Opener, clock: Clock, home: Path
) -> None:
    loaded = {"event_id": "old", "source": "load", "received_ts": T0 + MINUTE}
    merge_raw(Lake.open(), pa.Table.from_pylist([loaded], schema=RAW_SCHEMA))
    opened().append([play("b"), play("a")])
    clock.now += MINUTE
    opened().append([play("c")])
    clock.now = T0 + HOUR
    assert close_hours(Window.of_hour(T0), clock=clock) == 4
    before = files(home)
    assert close_hours(Window.of_hour(T0), clock=clock) == 4
    assert files(home) == before
    assert [row["event_id"] for row in raw_rows(Window.of_hour(T0))] == ["old", "b", "a", "c"]


def test_empty_hours_are_closed_too(home: Path, clock: Clock) -> None:
    clock.now = T0 + 3 * HOUR
    window = Window(T0, T0 + 3 * HOUR)
    assert close_hours(window, clock=clock) == 0
    Lake.open().require_complete(RAW, window)


def test_hours_that_have_not_begun_are_not_closed(home: Path, clock: Clock) -> None:
    with pytest.raises(BadInput, match="have not begun"):
        close_hours(Window(T0, T0 + 2 * HOUR), clock=clock)


def test_the_running_hour_may_be_closed_early_and_again(opened: Opener, clock: Clock) -> None:
    journal = opened()
    journal.append([play("a")])
    assert close_hours(Window.of_hour(T0), clock=clock) == 1
    journal.append([play("b")])
    assert close_hours(Window.of_hour(T0), clock=clock) == 2


def test_nothing_is_stamped_into_a_closed_hour_even_if_the_clock_goes_back(
    opened: Opener, clock: Clock
) -> None:
    early = opened()
    clock.now = T0 + HOUR
    close_hours(Window.of_hour(T0), clock=clock)
    clock.now = T0 + 59 * MINUTE
    for journal in (early, opened()):
        journal.append([play(f"a{id(journal)}")])
    clock.now = T0 + HOUR + MINUTE
    assert close_hours(Window.of_hour(T0), clock=clock) == 0
    assert close_hours(Window.of_hour(clock.now), clock=clock) == 2


def test_whether_an_event_is_late_goes_by_the_hour_in_which_it_is_stamped(
    opened: Opener, clock: Clock
) -> None:
    journal, event = opened(), play("a", T0 - 48 * HOUR)
    clock.now = T0 + HOUR
    close_hours(Window.of_hour(T0), clock=clock)
    clock.now = T0 + 59 * MINUTE  # by this clock it is not late, but nothing gets that stamp
    [receipt] = journal.append([event])
    assert (receipt.status, "48 hours ago" in str(receipt.reason)) == ("refused", True)


def test_a_clock_that_is_put_back_lets_no_event_of_the_future_in(
    opened: Opener, clock: Clock
) -> None:
    journal = opened()
    with ThreadPoolExecutor(1) as pool, closing(HourLock(journal.root)) as lock:
        with lock.alone():
            waiting = pool.submit(journal.append, [play("a", clock.now)])
            time.sleep(0.2)  # so that it is judged by now, and waits for its stamp
            clock.now -= 10 * MINUTE
        [receipt] = waiting.result()
    assert (receipt.status, "in the future" in str(receipt.reason)) == ("refused", True)


def test_a_batch_keeps_nobody_waiting_while_it_is_read(opened: Opener) -> None:
    journal, others = opened(), list[str]()

    class Odd(dict[str, Any]):
        """No event; whenever it is read, another thread has an event taken in."""

        def items(self) -> Any:
            event = play(f"other {len(others)}")
            [receipt] = pool.submit(journal.append, [event]).result(timeout=20)
            others.append(receipt.status)
            return super().items()

    with ThreadPoolExecutor(1) as pool:
        receipts = journal.append([play("a"), Odd(colour="red")])
    assert [receipt.status for receipt in receipts] == ["accepted", "refused"]
    assert set(others) == {"accepted"}
    assert [e.event_id for e in recent(journal, T0)][len(others) :] == ["a"]


def test_who_is_forgotten_while_events_wait_to_be_written_is_heeded_by_all(home: Path) -> None:
    journal, now = Journal.open(), datetime.now(UTC)
    with ThreadPoolExecutor(3) as pool, closing(HourLock(journal.root)) as lock:
        with lock.alone():
            waiting = [pool.submit(journal.append, [play(f"{n}", now)]) for n in range(3)]
            time.sleep(0.2)  # so that they are judged by now, and wait for the lock
            ask("u")
        receipts = [receipt for each in waiting for receipt in each.result()]
    assert {receipt.status for receipt in receipts} == {"refused"}
    assert all("was forgotten" in str(receipt.reason) for receipt in receipts)
    assert list(recent(journal, now - HOUR)) == []


def test_a_batch_is_never_torn_apart_by_the_hour(opened: Opener, clock: Clock) -> None:
    clock.now = T0 + HOUR - timedelta(microseconds=2)
    opened().append([play(str(n)) for n in range(5)])
    clock.now = T0 + HOUR
    assert close_hours(Window.of_hour(T0), clock=clock) == 0
    assert close_hours(Window.of_hour(clock.now), clock=clock) == 5


def test_a_torn_line_is_left_out_and_never_written_after(
    opened: Opener, clock: Clock, home: Path
) -> None:
    opened().append([play("a")])
    [path] = (home / "intake").rglob("*.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole + whole.replace(b'"a"', b'"b"')[:-1])
    clock.now += MINUTE
    journal = opened()
    assert [e.event_id for e in recent(journal, T0)] == ["a"]
    assert journal.append([play("b")])[0].status == "accepted"
    assert [e.event_id for e in recent(opened(), T0)] == ["a", "b"]


def test_a_damaged_line_costs_no_other(opened: Opener, home: Path) -> None:
    opened().append([play("a"), play("b"), play("c")])
    [path] = (home / "intake").rglob("*.jsonl")
    first, _, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b"\0\0\0\n" + b"7\n" + third)
    assert [e.event_id for e in recent(opened(), T0)] == ["a", "c"]


@pytest.mark.parametrize("broken", ["write", "fdatasync"])
def test_what_the_disk_does_not_take_is_not_confirmed_and_may_be_sent_again(
    broken: str, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    journal = opened()
    journal.append([play("a")])
    with monkeypatch.context() as patch:
        patch.setattr(os, broken, fail)
        with pytest.raises(NotKept, match="No space left"):
            journal.append([play("b")])
    assert journal.append([play("b")])[0].status == "accepted"
    assert [e.event_id for e in recent(opened(), T0)] == ["a", "b"]


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """While this lasts, this process's files take so many bytes, as on a disk that gets full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_gets_full_keeps_what_was_confirmed_and_nothing_else(
    opened: Opener, clock: Clock, home: Path
) -> None:
    journal, batch = opened(), [play(f"b{n}") for n in range(20)]
    journal.append([play("a")])
    [path] = (home / "intake").rglob("*.jsonl")
    descriptors = len(os.listdir("/proc/self/fd"))
    with files_end_at(5 * path.stat().st_size):
        for _ in range(50):
            with pytest.raises(NotKept, match="too large"):
                journal.append(batch)
        assert journal.append([play("c")])[0].status == "accepted"
        assert journal.append([play("a")])[0].status == "duplicate"
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1
    assert {receipt.status for receipt in journal.append(batch)} == {"accepted"}
    assert {receipt.status for receipt in journal.append(batch)} == {"duplicate"}
    assert len(list((home / "intake").rglob("*.jsonl"))) == 2
    assert close_hours(Window.of_hour(clock.now), clock=clock) == 1 + 1 + 20


class InTurn:
    """A lock that is given to who has waited for it longest."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asked = self._served = 0

    def __enter__(self) -> None:
        with self._changed:
            turn, self._asked = self._asked, self._asked + 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._served == turn)

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._served += 1
            self._changed.notify_all()

    def wait_until_asked(self, times: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._asked >= times, timeout=20)


@pytest.mark.parametrize("before", [[], ["a"]])
def test_who_waits_while_a_write_fails_is_kept_in_a_file_that_stays(
    before: list[str], opened: Opener, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, turns, write = opened(), InTurn(), os.write
    for event_id in before:
        journal.append([play(event_id)])
    follower = follow(home / "intake", T0)

    def fill_up(file: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", write)
        turns.wait_until_asked(2)
        write(file, bytes(data)[: len(data) // 2])
        assert [e.event_id for _, e in follower.poll(T0)] == [*before, "b0"]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal._writer, "_appending", turns)
    monkeypatch.setattr(os, "write", fill_up)
    with ThreadPoolExecutor(2) as pool:
        fails = pool.submit(journal.append, [play("b0"), play("b1", attributes={"x": "y" * 200})])
        turns.wait_until_asked(1)
        [receipt] = pool.submit(journal.append, [play("c")]).result(timeout=20)
        with pytest.raises(NotKept, match="No space left"):
            fails.result(timeout=20)
    assert receipt.status == "accepted"
    assert [e.event_id for _, e in follower.poll(T0)] == ["c"]
    assert [e.event_id for e in recent(opened(), T0)] == [*before, "c"]


def test_nothing_is_a_duplicate_of_what_a_file_lost_that_was_full_already(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, full = opened(), threading.Event()

    def no_space(*_: Any) -> int:
        full.set()
        raise OSError(28, "No space left on device")

    def fail(*_: Any) -> None:
        monkeypatch.setattr(os, "write", no_space)
        others.append(pool.submit(journal.append, [play("b")]))
        assert full.wait(20)
        wait(others, timeout=0.2)
        raise OSError(5, "Input/output error")

    others: list[Future[Any]] = []
    with ThreadPoolExecutor(1) as pool, monkeypatch.context() as patch:
        patch.setattr(os, "write", os.write)
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(NotKept, match="Input/output"):
            journal.append([play("a")])
        with pytest.raises(NotKept, match="No space left"):
            others[0].result(timeout=20)
    assert journal.append([play("a")])[0].status == "accepted"
    assert [e.event_id for e in recent(opened(), T0)] == ["a"]


def test_who_follows_a_journal_meets_no_half_line_when_the_disk_gets_full(
    opened: Opener, clock: Clock, home: Path
) -> None:
    journal, follower = opened(), follow(home / "intake", T0)
    journal.append([play("a")])
    assert len(follower.poll(clock.now)) == 1
    [path] = (home / "intake").rglob("*.jsonl")
    with files_end_at(3 * path.stat().st_size), pytest.raises(NotKept):
        journal.append([play(f"b{n}") for n in range(20)])
    journal.append([play(f"b{n}") for n in range(20)])
    assert [e.event_id for _, e in follower.poll(clock.now)] == [f"b{n}" for n in range(20)]


def test_a_file_that_goes_while_a_folder_is_listed_lets_no_other_be_read_again(
    opened: Opener, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower, scandir = follow(home / "intake", T0), os.scandir
    for event_id in "ab":
        opened().append([play(event_id)])
    first, _ = sorted((home / "intake").rglob("*.jsonl"))
    gone = first.with_stem(f"{first.stem}-gone")

    class Listed(list[Any]):
        """A folder whose `gone` file goes as soon as it is listed."""

        def __init__(self, folder: str) -> None:
            super().__init__(sorted(scandir(folder), key=lambda entry: Path(entry.path).stem))
            gone.unlink(missing_ok=True)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None: ...

    assert len(follower.poll(T0)) == 2
    gone.touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", Listed)
        follower.poll(T0)
    assert follower.poll(T0) == []


def test_a_long_history_is_followed_hour_by_hour_and_goes_on_where_it_broke_off(
    opened: Opener, clock: Clock, home: Path
) -> None:
    for n in range(4):
        opened().append([play(f"{n}-{each}", clock.now) for each in "ab"])
        clock.now += HOUR
    follower = follow(home / "intake", T0)

    def ids(hour: list[tuple[datetime, Accepted]]) -> list[str]:
        return [event.event_id for _, event in hour]

    assert ids(next(follower.hours(clock.now))) == ["0-a", "0-b"]
    rest = [ids(hour) for hour in follower.hours(clock.now)]
    assert rest == [["1-a", "1-b"], ["2-a", "2-b"], ["3-a", "3-b"]]
    assert list(follower.hours(clock.now)) == []


def test_a_batch_that_breaks_off_may_be_sent_again(opened: Opener) -> None:
    journal = opened()
    with pytest.raises(TypeError):
        journal.append([play("a"), {"no JSON": {1: 1, "two": 2}}])
    assert journal.append([play("a")])[0].status == "accepted"
    assert [e.event_id for e in recent(opened(), T0)] == ["a"]


def test_threads_append_together_and_each_id_gets_in_once(home: Path) -> None:
    journal = Journal.open()
    now = datetime.now(UTC)
    shared = [play(f"shared{n}", now) for n in range(50)]

    def send(thread: int) -> list[str]:
        own = [play(f"{thread}-{n}", now) for n in range(50)]
        pairs = zip(own, shared, strict=True)
        return [r.status for pair in pairs for r in journal.append(list(pair))]

    with ThreadPoolExecutor(8) as pool:
        statuses = [status for found in pool.map(send, range(8)) for status in found]
    assert statuses.count("accepted") == 8 * 50 + 50
    ids = [e.event_id for e in recent(Journal.open(), now - HOUR)]
    assert len(ids) == len(set(ids)) == 450


def test_closing_waits_for_whoever_is_writing(home: Path) -> None:
    """While threads append, the running hour is closed again and again; nothing gets lost."""
    journal, now, stop = Journal.open(), datetime.now(UTC), threading.Event()

    def send(thread: int) -> int:
        sent = 0
        while not stop.is_set():
            journal.append([play(f"{thread}-{sent}", now)])
            sent += 1
        return sent

    with ThreadPoolExecutor(3) as pool:
        sending = [pool.submit(send, thread) for thread in range(3)]
        for _ in range(5):
            close_hours(Window.of_hour(datetime.now(UTC)))
        stop.set()
        sent = sum(future.result() for future in sending)
    window = Window(Window.of_hour(now).start, Window.of_hour(datetime.now(UTC)).end)
    assert close_hours(window) == sent


SENDER = """
import sys
from datetime import UTC, datetime
from nearline.intake import Journal
journal, sent = Journal.open(), 0
while True:
    rows = [
        {"event_id": f"{n}", "user_id": "u", "item_id": "i", "event_type": "play", "value": 1,
         "event_ts": datetime.now(UTC).isoformat(), "query": "x" * 500}
        for n in range(sent, sent + 7)
    ]
    assert all(receipt.status == "accepted" for receipt in journal.append(rows))
    sent += 7
    sys.stdout.write(f"{sent}\\n")
    sys.stdout.flush()
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_process_loses_nothing_that_it_had_confirmed(seed: int, home: Path) -> None:
    began = datetime.now(UTC)
    sender = subprocess.Popen(
        [sys.executable, "-c", SENDER], stdout=subprocess.PIPE, env=os.environ | {"TZ": "UTC"}
    )
    assert sender.stdout is not None
    sender.stdout.readline()
    time.sleep(random.Random(seed).uniform(0.01, 0.3))
    sender.send_signal(signal.SIGKILL)
    rest = sender.stdout.read().decode()
    sender.wait()
    confirmed = max([7, *(int(line) for line in rest.split("\n")[:-1])])
    ids = {event.event_id for event in recent(Journal.open(), began - HOUR)}
    assert {str(n) for n in range(confirmed)} <= ids
    again = Journal.open().append([play("0", datetime.now(UTC))])
    assert again[0].status == "duplicate"


def test_old_journals_are_removed_once_raw_has_their_rows(
    opened: Opener, clock: Clock, home: Path
) -> None:
    opened().append([play("a")])
    clock.now += 3 * HOUR
    opened().append([play("b")])
    assert prune_journals(T0 + 3 * HOUR) == 1
    assert [row["event_id"] for row in raw_rows(Window.of_hour(T0))] == ["a"]
    assert [event.event_id for event in recent(opened(), T0)] == ["b"]
    assert prune_journals(T0 + 3 * HOUR) == 0
