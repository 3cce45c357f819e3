"""Which hours are finished: the same before, while and after housekeeping puts entries together."""

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from nearline.errors import MissingPartition
from nearline.lake import Lake
from nearline.ledger import Account
from nearline.windows import HOUR, Window

T0 = datetime(2026, 1, 1, tzinfo=UTC)
ROW = pa.table({"id": ["a"]})


def hours(start: int, end: int) -> Window:
    return Window(T0 + start * HOUR, T0 + end * HOUR)


@pytest.fixture
def lake(home: Path) -> Lake:
    """Ten finished hours, one missing, ten more; a bulk run had taken the first five at once."""
    lake = Lake.open()
    lake.mark_complete("x", hours(0, 5), rows=50)
    for start in (*range(10), *range(11, 21)):
        lake.mark_complete("x", hours(start, start + 1), rows=10)
    return lake


def names(lake: Lake) -> list[str]:
    return sorted(path.name for path in Path(lake.root, "_ledger/x").iterdir())


def test_a_window_within_another_counts_once(lake: Lake) -> None:
    assert lake.ledger("x").rows() == 200
    assert lake.covered("x") == [hours(0, 10), hours(11, 21)]


def test_old_entries_become_one_for_each_stretch(lake: Lake) -> None:
    ledger = lake.ledger("x")
    assert [account.window for account in ledger.unsettled(T0 + 2 * HOUR)] == [
        hours(0, 1),
        hours(1, 2),
    ]
    assert ledger.settle(T0 + 12 * HOUR) == 12
    assert names(lake) == [
        "20260101T00_20260101T10.settled.json",
        "20260101T11_20260101T12.settled.json",
        *(f"20260101T{h}_20260101T{h + 1}.json" for h in range(12, 20)),
        "20260101T20_20260101T21.json",
    ]
    assert (ledger.rows(), lake.covered("x")) == (200, [hours(0, 10), hours(11, 21)])
    assert ledger.unsettled(T0 + 12 * HOUR) == []
    assert ledger.settle(T0 + 12 * HOUR) == 0
    assert ledger.settle(T0 + 21 * HOUR) == 10
    assert len(names(lake)) == 2


def test_what_is_computed_again_is_unsettled_again(lake: Lake) -> None:
    ledger = lake.ledger("x")
    ledger.settle(T0 + 21 * HOUR)
    lake.mark_complete("x", hours(4, 5), rows=11, since=T0 + 2 * HOUR)
    assert ledger.unsettled(T0 + 21 * HOUR) == [Account(hours(4, 5), 11, T0 + 2 * HOUR)]
    lake.mark_complete("x", hours(0, 10), rows=90)
    assert ledger.rows() == 190, "the newer of two entries of one window"
    ledger.settle(T0 + 21 * HOUR)
    assert (ledger.rows(), ledger.unsettled(T0 + 21 * HOUR)) == (190, [])


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("count", range(4))
def test_a_kill_while_entries_are_put_together_loses_nothing(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    left, remove, ledger = iter(range(count)), lake.fs.rm_file, lake.ledger("x")

    def rm_file(path: str) -> None:
        if next(left, None) is None:
            raise Killed
        remove(path)

    with monkeypatch.context() as patch:
        patch.setattr(lake.fs, "rm_file", rm_file)
        with suppress(Killed):
            ledger.settle(T0 + 21 * HOUR)
    assert (ledger.rows(), lake.covered("x")) == (200, [hours(0, 10), hours(11, 21)])
    ledger.settle(T0 + 21 * HOUR)
    assert (ledger.rows(), len(names(lake))) == (200, 2)


def test_late_rows_are_told_by_whatever_overlaps(lake: Lake) -> None:
    late = T0 + 60 * HOUR
    lake.mark_complete("x", hours(60, 61), rows=1, since=T0 + 55 * HOUR)
    lake.mark_complete("x", hours(61, 62), rows=1, since=T0 + 40 * HOUR)
    assert lake.changed("x", hours(60, 61)) == hours(55, 61)
    assert lake.changed("x", hours(61, 62)) == hours(40, 62)
    assert lake.changed("x", hours(60, 62)) == hours(40, 62)
    assert lake.changed("x", Window(late - HOUR, late)) == hours(59, 60)
    assert lake.changed("never", hours(0, 1)) == hours(0, 1)


def test_an_hour_of_a_longer_run_reaches_back_no_farther_than_late_rows_can(lake: Lake) -> None:
    lake.mark_complete("x", hours(300, 400), rows=1)
    assert lake.changed("x", hours(350, 351)) == hours(350, 351)
    lake.mark_complete("x", hours(300, 400), rows=1, since=T0 + 290 * HOUR)
    assert lake.changed("x", hours(350, 351)) == hours(302, 351)
    lake.mark_complete("x", hours(350, 351), rows=1)
    assert lake.changed("x", hours(350, 351)) == hours(350, 351), "the hour alone is newer"


def test_a_longer_run_supersedes_what_was_recorded_of_its_hours(lake: Lake) -> None:
    lake.mark_complete("x", hours(60, 61), rows=1, since=T0 + 55 * HOUR)
    lake.mark_complete("x", hours(60, 62), rows=1)
    assert lake.changed("x", hours(60, 61)) == hours(60, 61)


def test_stale_hours_are_finished_no_more_until_they_are_done_again(lake: Lake) -> None:
    ledger = lake.ledger("x")
    ledger.make_stale(hours(3, 8))
    assert lake.covered("x") == [hours(0, 3), hours(8, 10), hours(11, 21)]
    with pytest.raises(MissingPartition):
        lake.require_complete("x", hours(2, 4))
    lake.mark_complete("x", hours(4, 6), rows=20)
    assert ledger.stale() == [hours(3, 4), hours(6, 8)]
    ledger.settle(T0 + 21 * HOUR)
    assert ledger.stale() == [hours(3, 4), hours(6, 8)]
    lake.mark_complete("x", hours(0, 10), rows=100)
    assert ledger.stale() == []
    assert ledger.gaps() == [hours(10, 11)]


def test_what_becomes_stale_while_it_is_done_again_stays_stale(lake: Lake) -> None:
    ledger = lake.ledger("x")
    ledger.make_stale(hours(3, 8))
    ledger.begin(hours(2, 7))
    assert ledger.stale() == [hours(2, 8)], "until it is marked, and after a kill"
    assert ledger.outdated() == [hours(7, 8)]
    ledger.make_stale(hours(5, 9))
    lake.mark_complete("x", hours(2, 7), rows=50)
    assert ledger.stale() == [hours(5, 9)]


def test_a_later_run_makes_up_for_one_that_was_killed(lake: Lake) -> None:
    ledger = lake.ledger("x")
    ledger.begin(hours(2, 4))
    ledger.begin(hours(0, 6))
    lake.mark_complete("x", hours(0, 6), rows=60)
    assert ledger.stale() == []


def test_no_row_is_later_than_late_hours(lake: Lake) -> None:
    lake.mark_complete("x", hours(100, 200), rows=1, since=T0 + 90 * HOUR)
    assert lake.changed("x", hours(150, 151)) == hours(102, 151)


def test_only_overlapping_entries_are_opened(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    read = lake.fs.cat_file
    monkeypatch.setattr(lake.fs, "cat_file", lambda path: opened.append(path) or read(path))
    lake.covered("x")
    lake.require_complete("x", hours(12, 13))
    assert opened == []
    lake.changed("x", hours(12, 13))
    assert [Path(path).name for path in opened] == ["20260101T12_20260101T13.json"]


def test_expired_days_are_gone_and_known_to_be(lake: Lake) -> None:
    for day in range(3):
        lake.write_hour("x", T0 + 24 * day * HOUR, ROW)
        lake.mark_complete("x", hours(24 * day, 24 * day + 24), rows=1)
    lake.require_kept("x", hours(0, 1))
    assert lake.expire("x", T0) == 0
    assert lake.expire("x", T0 + 40 * HOUR) == 1
    assert lake.covered("x") == [hours(24, 72)]
    assert len(lake.files("x")) == 2
    lake.require_kept("x", hours(24, 30))
    with pytest.raises(MissingPartition, match=r"x is needed .* before 2026-01-02 .*KEEP_X_DAYS"):
        lake.require_kept("x", hours(23, 30))
    with pytest.raises(MissingPartition, match="x is not complete"):
        lake.require_complete("x", hours(23, 30))
    assert lake.expire("x", T0 + 40 * HOUR) == 0
    assert lake.expire("x", T0 + 48 * HOUR) == 1
    assert names(lake)[-1] == "expired_20260103T00.json"
    assert lake.covered("x") == [hours(48, 72)]


def test_a_kill_while_days_expire_leaves_days_that_nobody_relies_on(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.write_hour("x", T0, ROW)

    def rm(path: str, recursive: bool) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(lake.fs, "rm", rm)
        with pytest.raises(Killed):
            lake.expire("x", T0 + 24 * HOUR)
    with pytest.raises(MissingPartition):
        lake.require_kept("x", hours(0, 1))
    assert lake.expire("x", T0 + 24 * HOUR) == 1
    assert lake.files("x") == []
