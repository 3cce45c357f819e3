"""Long windows: cut by raw rows, resumed after a kill, forgotten when done."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from nearline.lake import RAW, Lake
from nearline.settings import settings
from nearline.windows import HOUR, Window
from pipeline.chunks import Progress, plan

T0 = datetime(2026, 5, 1, tzinfo=UTC)
DAY = 24 * HOUR
WINDOW = Window(T0 + 6 * HOUR, T0 + 5 * DAY - HOUR)
ROWS = {0: 5, 1: 4, 2: 30, 4: 3}
"""Raw rows by day; day 3 has none."""


@pytest.fixture
def lake(home: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("NEARLINE_BACKFILL_ROWS", "10")
    settings.cache_clear()
    lake = Lake.open()
    for day, rows in ROWS.items():
        table = pa.table({"n": list(range(rows))})
        lake.write_hour(RAW, T0 + day * DAY + 7 * HOUR, table)
    return lake


def days(first: int, end: int) -> Window:
    return Window(max(T0 + first * DAY, WINDOW.start), min(T0 + end * DAY, WINDOW.end))


CHUNKS = [days(0, 2), days(2, 3), days(3, 5)]


def test_a_window_is_cut_between_days_by_its_raw_rows(lake: Lake) -> None:
    assert plan(lake, WINDOW) == CHUNKS
    assert plan(lake, days(2, 3)) == [days(2, 3)]
    lake.compact_day(RAW, T0.date())
    assert plan(lake, WINDOW) == CHUNKS


def test_an_hour_looks_at_no_rows(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake, "manifests", None)
    hour = Window(T0, T0 + HOUR)
    assert plan(lake, hour) == [hour]


class Killed(BaseException):
    """The process ends here."""


class Work:
    """Counts one for each chunk; dies before or after the work of the chunk with this number."""

    def __init__(self, *, dies: int | None = None, in_the_middle: bool = False) -> None:
        self.done: list[Window] = []
        self._dies, self._in_the_middle = dies, in_the_middle

    def __call__(self, chunk: Window) -> int:
        dies = len(self.done) == self._dies
        if dies and not self._in_the_middle:
            raise Killed
        self.done.append(chunk)
        if dies:
            raise Killed
        return 1


@pytest.mark.parametrize("in_the_middle", [False, True])
def test_a_killed_run_goes_on_after_the_last_finished_chunk(
    lake: Lake, in_the_middle: bool
) -> None:
    killed, resumed = Work(dies=1, in_the_middle=in_the_middle), Work()
    with pytest.raises(Killed):
        Progress(lake, WINDOW).run("spark", WINDOW, killed)
    assert killed.done == CHUNKS[: 1 + in_the_middle]
    assert Progress(lake, WINDOW).run("spark", WINDOW, resumed) == 3
    assert resumed.done == CHUNKS[1:]
    dbt = Work()
    assert Progress(lake, WINDOW).run("dbt", WINDOW, dbt) == 3
    assert dbt.done == CHUNKS


def test_a_step_that_was_done_is_counted_not_done_again_until_all_are(lake: Lake) -> None:
    progress = Progress(lake, WINDOW)
    progress.run("spark", WINDOW, Work())
    again = Work()
    assert progress.run("spark", WINDOW, again) == 3
    assert again.done == []
    progress.finish()
    assert not lake.fs.exists(f"{lake.root}/_progress/20260501T06_20260505T23")
    progress.run("spark", WINDOW, again)
    assert again.done == CHUNKS


def test_what_is_left_is_cut_anew_when_the_limit_changed(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed):
        Progress(lake, WINDOW).run("spark", WINDOW, Work(dies=1))
    monkeypatch.setattr(settings(), "backfill_rows", 1000)
    work = Work()
    Progress(lake, WINDOW).run("spark", WINDOW, work)
    assert work.done == [days(2, 5)]


def test_a_short_window_leaves_nothing(lake: Lake) -> None:
    Progress(lake, days(0, 1)).run("spark", days(0, 1), Work())
    assert not lake.fs.exists(f"{lake.root}/_progress")
