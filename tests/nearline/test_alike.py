"""What is alike by content, as literal rows."""

from pathlib import Path

import numpy as np
import pytest

from nearline import alike
from nearline.alike import Alike, summed

NOBODY = np.array([False] * 5)


@pytest.fixture
def found() -> Alike:
    """Five items: two are like the first, none like the second, three like the third."""
    starts = np.array([0, 2, 2, 5, 5, 5])
    items = np.array([4, 1, 2, 0, 1], dtype=np.int32)
    return Alike.of(starts, items, np.array([0.75, 0.25, 0.5, 0.25, 0.25], dtype=np.float32))


def test_each_item_has_its_own_row(found: Alike) -> None:
    assert found.rows.dtype == np.int32
    assert found.rows[:, :4].tolist() == [[4, 1, -1, -1], [-1] * 4, [2, 0, 1, -1], *[[-1] * 4] * 2]
    np.testing.assert_array_equal(found.shares[0, :3], np.array([0.75, 0.25, 0], np.float32))
    assert (found.rows[:, 4:] == -1).all()


def test_likeness_adds_up_over_items_and_what_is_not_allowed_is_left_out(
    found: Alike, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed, asked = np.array([True, True, True, True, False]), np.array([0, 1, 2])
    assert found.proposed(asked, allowed) == [(1, 0.5), (2, 0.5), (0, 0.25)]
    assert found.proposed(asked, NOBODY) == []
    assert found.proposed(np.array([1]), allowed) == []
    assert found.proposed(np.zeros(0, dtype=np.int64), allowed) == []
    monkeypatch.setattr(alike, "PROPOSED", 1)
    assert found.proposed(asked, allowed) == [(1, 0.5)]


def test_what_was_written_is_read_back(found: Alike, tmp_path: Path) -> None:
    found.save(tmp_path)
    again = Alike.read(tmp_path)
    np.testing.assert_array_equal(again.rows, found.rows)
    np.testing.assert_array_equal(again.shares, found.shares)
    assert isinstance(again.rows, np.memmap), "all workers share it"


def test_a_sum_counts_each_time_that_a_row_stands_there() -> None:
    rows, allowed = np.array([2, 0, 2]), np.ones(3, dtype=bool)
    assert summed(rows, np.array([0.25, 1, 0.5]), allowed, 5) == [(0, 1.0), (2, 0.75)]
