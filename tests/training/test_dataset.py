from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from nearline.errors import MissingPartition
from nearline.lake import Lake
from nearline.schema import EVENT_SCHEMA, ITEM_SCHEMA
from nearline.sequence import History, Vocabulary, microseconds, model_input, pad
from nearline.sources.dataset import conform, upsert_items
from nearline.windows import Window
from training.dataset import (
    Interactions,
    batches,
    cut_time,
    interactions,
    read_catalogue,
    read_events,
    touched,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
VOCABULARY = Vocabulary(("a", "b", "c"), ("view", "skip"))
ROWS = """
    u1 a view 0
    u1 b skip 10
    u1 a view 20
    u1 c view 20
    u1 z view 25
    u1 b view 30
    u2 - view 5
    u2 c view 40
    u2 a view 41
"""
Events = Callable[[str], pa.Table]


def test_events_become_arrays_by_user_and_time_whatever_their_order(events: Events) -> None:
    table = events(ROWS)
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    data = interactions(shuffled, VOCABULARY, ["view"])
    assert data.user_ids == ("u1", "u2")
    assert data.users.tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert data.begins.tolist() == [0, 0, 0, 0, 0, 5, 5]
    assert data.items.tolist() == [1, 2, 1, 3, 2, 3, 1]
    assert data.types.tolist() == [1, 2, 1, 1, 1, 1, 1]
    assert ((data.times - microseconds(START)) // 1_000_000).tolist() == [0, 10, 20, 20, 30, 40, 41]
    assert data.gaps.tolist() == [5, 5, 1, 5, 1, 2, 1]
    # Events of one instant are both foreseen from the last one before it.
    assert data.states.tolist() == [-1, 0, 1, 1, 3, -1, 5]
    # The first event is not foreseen, a skip is not wanted, a and b come again.
    assert data.target.tolist() == [False, False, False, True, False, False, True]
    assert table.equals(events(ROWS))


def random_events(seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    rows = 300
    seconds = np.sort(rng.integers(0, 2000, rows)) * rng.choice([1, 3000], rows)
    frame = pd.DataFrame(
        {
            "event_id": [f"e{n}" for n in rng.permutation(rows)],
            "user_id": rng.choice(["u1", "u2", "u3", "once"], rows, p=[0.6, 0.3, 0.09, 0.01]),
            "item_id": rng.choice([f"i{n}" for n in range(60)] + ["unknown"], rows),
            "event_type": rng.choice(["view", "skip", "strange"], rows),
            "event_ts": pd.Timestamp(START) + pd.to_timedelta(seconds, unit="s"),
            "value": rng.choice([None, 0.5, 4.0, -1.0], rows),
        }
    )
    return conform(frame, EVENT_SCHEMA)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_inputs_are_those_that_a_request_would_make(seed: int) -> None:
    table, length = random_events(seed), 7
    vocabulary = Vocabulary(tuple(f"i{n}" for n in range(60)), ("view", "skip"))
    data = interactions(table, vocabulary, ["view"])
    targets = data.targets()
    frame = table.to_pandas().sort_values(["event_ts", "event_id"])
    frame["us"] = frame["event_ts"].astype("datetime64[us, UTC]").astype("int64")
    frame["value"] = frame["value"].fillna(0.0)
    seen = []
    for batch in batches(data, targets, length=length, stride=1, tokens=64):
        for row, column, target in zip(*batch.cells, batch.targets, strict=True):
            mine = frame[frame["user_id"] == data.user_ids[data.users[target]]]
            past = mine[mine["us"] < data.times[target]]
            columns = ("item_id", "event_type", "us", "value")
            history = History(*(past[c].tolist() for c in columns))
            now = int(data.times[target])
            expected = model_input(history, vocabulary, now_us=now, length=length)
            found = [part[row, : column + 1].tolist() for part in batch.inputs]
            assert found == [part.tolist() for part in expected]
        seen += batch.order.tolist()
    assert sorted(seen) == list(range(len(targets)))
    assert len(targets) > 30


def test_padding_is_that_of_a_request(events: Events) -> None:
    data = interactions(events(ROWS), VOCABULARY, ["view"])
    (batch,) = batches(data, data.targets(), length=5, stride=5, tokens=100)
    longest = batch.inputs.items.shape[1]
    rows = [
        tuple(part[row][part[row] > 0] for part in batch.inputs)
        for row in range(len(batch.inputs.items))
    ]
    for part, padded in zip(batch.inputs, pad(rows, longest), strict=True):
        assert part.tolist() == padded.tolist()


def test_training_reads_each_target_once_and_at_least_half_of_the_length() -> None:
    vocabulary = Vocabulary(tuple(f"i{n}" for n in range(60)), ("view",))
    data = interactions(random_events(3), vocabulary, ["view"])
    rng, found = np.random.default_rng(0), []
    for batch in batches(data, data.targets(), length=8, stride=4, tokens=40, rng=rng):
        assert batch.inputs.items.size <= 40 or len(batch.inputs.items) == 1
        past = data.states[batch.targets] - data.begins[batch.targets]
        assert (batch.cells[1] >= np.minimum(past, 4 - 1)).all()
        assert (batch.inputs.items[batch.cells] == data.items[data.states[batch.targets]]).all()
        found += batch.targets.tolist()
    assert sorted(found) == data.targets().tolist()


def test_touched_are_the_items_up_to_a_state(events: Events) -> None:
    data = interactions(events(ROWS), VOCABULARY, ["view"])
    numbers, rows = touched(data, np.array([1, 6]))
    assert (numbers.tolist(), rows.tolist()) == ([0, 0, 1, 1], [0, 1, 2, 0])
    numbers, rows = touched(data, np.array([4, 5]), newest=2)
    assert (numbers.tolist(), rows.tolist()) == ([0, 0, 1], [2, 1, 2])


def test_the_newest_share_lies_after_the_cut() -> None:
    times = np.array([5, 1, 4, 2, 3, 6, 7, 8, 9, 10])
    assert cut_time(times, 0.2) == 9
    assert cut_time(times[:1], 0.2) == 5


def test_nothing_known_is_no_error_here(events: Events) -> None:
    data: Interactions = interactions(events("u1 z view 0"), VOCABULARY, ["view"])
    assert (len(data), data.targets().tolist()) == (0, [])
    assert list(batches(data, data.targets(), length=5, stride=1, tokens=9)) == []


def test_a_window_may_begin_before_the_lake_but_not_end_after_it(
    lake: Lake, fill: Callable[..., None], events: Events
) -> None:
    with pytest.raises(MissingPartition, match="no clean events before"):
        read_events(lake, Window(START, START.replace(day=2)))
    fill(events(ROWS), ["a", "b", "c"])
    assert read_events(lake, Window(START.replace(year=2025), START.replace(day=2))).num_rows == 9
    with pytest.raises(MissingPartition, match="not complete"):
        read_events(lake, Window(START, START.replace(day=3)))


def test_items_created_later_are_not_known_yet(lake: Lake) -> None:
    with pytest.raises(MissingPartition, match="catalogue has no item"):
        read_catalogue(lake, before=START)
    made = [START.replace(year=2025), START, None]
    upsert_items(
        lake, conform(pd.DataFrame({"item_id": list("abc"), "created_ts": made}), ITEM_SCHEMA)
    )
    assert read_catalogue(lake, before=START)["item_id"].to_pylist() == ["a", "c"]
