from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from nearline.domains import BUILT_IN, load_domain
from nearline.errors import BadInput
from nearline.sources import synthetic
from nearline.sources.dataset import iso_texts
from nearline.sources.synthetic import Stream, StreamSpec
from nearline.sources.world import World

END = datetime(2026, 1, 11, tzinfo=UTC)
SPEC = StreamSpec(users=50, items=80, events=3000, days=10, end=END, seed=3)


def made(domain: str, spec: StreamSpec = SPEC) -> pa.Table:
    return pa.concat_tables(Stream(spec, load_domain(domain)).batches())


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_event_keeps_to_its_domain(name: str) -> None:
    domain, events = load_domain(name), made(name)
    assert events.num_rows == SPEC.events
    assert len(pc.unique(events["event_id"])) == SPEC.events
    assert set(events["event_type"].to_pylist()) == set(domain.event_types)
    for row in events.to_pylist():
        kind = domain.event_types[row["event_type"]]
        assert (row["item_id"] is not None) == kind.requires_item
        assert (row["value"] is not None) == (kind.value is not None)
        if kind.value is not None:
            assert kind.value.min <= float(row["value"]) <= kind.value.max
        assert SPEC.start <= row["received_ts"] < SPEC.end


def test_the_same_seed_gives_the_same_stream_and_another_another() -> None:
    assert made("commerce").equals(made("commerce"))
    other = StreamSpec(users=50, items=80, events=3000, days=10, end=END, seed=4)
    assert not made("commerce").equals(made("commerce", other))


def test_nobody_meets_an_item_before_it_exists() -> None:
    stream = Stream(SPEC, load_domain("commerce"))
    created = {item["item_id"]: item["created_ts"] for item in stream.items().to_pylist()}
    events = pa.concat_tables(stream.batches()).to_pylist()
    assert all(created[e["item_id"]] <= e["received_ts"] for e in events if e["item_id"])
    assert max(created.values()) > SPEC.start


def test_popularity_has_a_long_tail() -> None:
    found = pc.value_counts(made("social")["item_id"].drop_null())
    counts = sorted(found.field("counts").to_pylist())
    assert sum(counts[-8:]) > 0.25 * sum(counts)


def test_a_day_in_parts_holds_as_many_events_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "BATCH_EVENTS", 40)
    parts = list(Stream(SPEC, load_domain("commerce")).batches())
    assert len(parts) > SPEC.days
    assert len(pc.unique(pa.concat_tables(parts)["event_id"])) == SPEC.events


def test_a_session_is_one_users_within_a_day() -> None:
    events = made("commerce").to_pandas()
    found = events.groupby("session_id")
    assert (found["user_id"].nunique() == 1).all()
    assert (found["received_ts"].agg(lambda times: times.dt.date.nunique()) == 1).all()
    assert 5 < found.size().mean() < 10


def test_tastes_drift() -> None:
    stream = Stream(SPEC, load_domain("commerce"))
    users, rng = np.zeros(500, dtype=int), np.random.default_rng(0)
    first, last = (set(stream.world.tastes(rng, day, users)) for day in (0, SPEC.days - 1))
    assert first != last
    assert first | last == set(stream.world.tastes(rng, SPEC.days // 2, users))


def test_a_burst_lifts_its_item_for_some_days() -> None:
    world = World(SPEC.users, SPEC.items, SPEC.days, SPEC.seed)
    (item,) = set(world._bursts[4]) - set(world._bursts[:4].ravel())
    weights = [
        dict(zip(s.items, np.diff(s.until, prepend=0), strict=True))[item]
        for s in map(world.shelf, (4, 9))
    ]
    assert weights[0] > 5 * weights[1]


def test_the_time_texts_are_those_of_every_load() -> None:
    events = made("social")
    times = iso_texts(events["received_ts"].to_pandas())
    assert events["event_ts"].to_pylist() == times.tolist()


def test_an_empty_world_is_refused() -> None:
    with pytest.raises(BadInput, match="users must be at least 1"):
        StreamSpec(users=0, items=1, events=1, days=1, end=END, seed=0)
