"""Held-back events: they arrive in the lake, or at the API, when their time has come."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from nearline.domains import load_domain
from nearline.intake.door import read_event
from nearline.lake import RAW, Lake
from nearline.schema import RAW_SCHEMA
from nearline.sources.dataset import Dataset
from nearline.sources.landing import load_with_traffic
from nearline.sources.synthetic import Stream, StreamSpec
from nearline.windows import Window
from pipeline.demo.traffic import deliver, trickle

END = datetime(2026, 1, 5, tzinfo=UTC)
SPEC = StreamSpec(users=20, items=30, events=400, days=3, end=END, seed=5)


class Listener:
    """Takes events as the client does, and keeps them."""

    def __init__(self) -> None:
        self.batches: list[list[dict[str, Any]]] = []

    def send_events(self, *, events: list[dict[str, Any]]) -> None:
        self.batches.append(events)


@pytest.fixture
def held_back(home: object) -> int:
    stream = Stream(SPEC, load_domain("entertainment"))
    dataset = Dataset(pa.concat_tables(list(stream.batches())), stream.items())
    return load_with_traffic(dataset, END, hold_back=0.25, speed=10).held_back


def test_an_hour_gets_its_own_events_once(held_back: int) -> None:
    hours = [Window.of_hour(END + timedelta(hours=n)) for n in range(12)]
    assert sum(deliver(hour) for hour in hours) == held_back
    deliver(hours[0])
    lake = Lake.open()
    arrived = [lake.read(RAW, hour, schema=RAW_SCHEMA).num_rows for hour in hours]
    assert sum(arrived) == held_back
    assert arrived[0] > 0


def test_the_api_gets_the_rest_in_order_as_events_it_accepts(held_back: int) -> None:
    listener = Listener()
    trickle(listener, since=END)
    events = [event for batch in listener.batches for event in batch]
    assert len(events) == held_back
    assert [e["event_ts"] for e in events] == sorted(e["event_ts"] for e in events)
    domain = load_domain("entertainment")
    assert [reason for event in events if (reason := read_event(event, domain)[1])] == []
