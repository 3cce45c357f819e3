from collections.abc import Callable
from datetime import UTC, datetime

import pandas as pd
import pyarrow as pa
import pytest

from nearline.domains import load_domain
from nearline.errors import BadInput
from nearline.schema import ITEM_SCHEMA
from nearline.sequence import microseconds
from nearline.sources.dataset import conform
from training.dataset import NONE
from training.replay.ages import events_before, groups
from training.replay.timeline import HOUR_US, Timeline, make_timeline

Events = Callable[[str], pa.Table]
START = microseconds(datetime(2026, 1, 1, tzinfo=UTC))
ROWS = """
    u1 b play 100
    u1 a play 3700
    u2 a play 3700
    u1 a play 3800
    u2 new play 7300
    u1 b rating 7300
    u2 d play 7400
    u2 - play 7500
"""


@pytest.fixture
def catalogue() -> pa.Table:
    """`d` exists from 01:00 on, `a` always; `b` and `new` are in no catalogue."""
    created = [pd.Timestamp("2026-01-01T01:00Z"), None]
    return conform(pd.DataFrame({"item_id": ["d", "a"], "created_ts": created}), ITEM_SCHEMA)


@pytest.fixture
def made(events: Events, catalogue: pa.Table) -> Timeline:
    return make_timeline(events(ROWS), catalogue, load_domain("entertainment"), 0.4)


def test_items_come_by_the_moment_they_are_known_from(made: Timeline) -> None:
    assert made.catalogue["item_id"].to_pylist() == ["a", "b", "d", "new"]
    assert ((made.known_since[1:] - START) // 1_000_000).tolist() == [100, 3600, 7300]
    moments = [0, 100, 101, 3600, 3601, 7300, 7301]
    known = [made.items_before(START + second * 1_000_000) for second in moments]
    assert known == [1, 1, 2, 2, 3, 3, 4]
    assert made.vocabulary(2).item_ids == ("a", "b")


def test_the_replay_begins_with_an_hour_and_asks_for_what_is_new_to_a_user(made: Timeline) -> None:
    assert made.start == START + HOUR_US
    # By user and time: u1 b a a b, u2 a new d. The second a and b of u1 are not asked for.
    assert made.everything.items.tolist() == [2, 1, 1, 2, 1, 4, 3]
    assert sorted(made.targets.tolist()) == [1, 4, 5, 6]
    assert made.targets[2:].tolist() == [5, 6]
    assert made.between(made.start, START + 2 * HOUR_US).tolist() == made.targets[:2].tolist()


def test_what_is_seen_ends_at_a_moment_and_holds_known_items(made: Timeline) -> None:
    seen = made.seen(before=START + 7400 * 1_000_000, items=3)
    assert seen.data.items.tolist() == [2, 1, 1, 2, 1]
    assert seen.place.tolist() == [0, 1, 2, 3, 4, NONE, NONE]
    late = made.seen(before=made.end, items=4, since=START + 7300 * 1_000_000)
    assert late.data.items.tolist() == [2, 4, 3]
    assert late.data.states.tolist() == [NONE, NONE, 1]


def test_the_cold_and_the_warm(made: Timeline, monkeypatch: pytest.MonkeyPatch) -> None:
    assert events_before(made.everything).tolist() == [0, 0, 2, 1, 0, 0, 0]
    monkeypatch.setattr("training.replay.ages.FEW", 1)
    found = {name: made.targets[there].tolist() for name, there in groups(made).items()}
    assert found["warm users"] == [t for t in made.targets if t != 4]
    assert found["cold users"] == [4]
    assert found["warm items"] == []


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_before_or_after_is_refused(
    events: Events, catalogue: pa.Table, share: float
) -> None:
    rows = events("u1 a play 0\n u1 a play 9000")
    with pytest.raises(BadInput, match="choose another --from-share"):
        make_timeline(rows, catalogue, load_domain("entertainment"), share)


def test_events_of_another_domain_are_refused(events: Events, catalogue: pa.Table) -> None:
    with pytest.raises(BadInput, match="set NEARLINE_DOMAIN"):
        make_timeline(events("u a view 1"), catalogue, load_domain("entertainment"), 0.5)
