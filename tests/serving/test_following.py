"""What a worker looks at again and again, while it is out of reach or asked by many at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Event
from typing import Any

import pytest

from serving.backoff import Backoff
from serving.features import Trending
from serving.stored import TrendingList


def test_what_fails_is_tried_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("serving.backoff.time.monotonic", lambda: now)
    backoff = Backoff(first_s=1, most_s=5)
    pauses = []
    for _ in range(4):
        pauses.append(backoff.failed("releases"))
        assert backoff.waits("releases")
        assert not backoff.waits("words")
        now += pauses[-1]
        assert not backoff.waits("releases")
    assert pauses == [1, 2, 4, 5]
    backoff.worked("releases")
    assert backoff.failed("releases") == 1


def test_a_store_of_releases_out_of_reach_is_counted_and_answers_go_on(
    world: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.promote(("i0", "i1"))
    service = world.service()
    with world.client(service) as client:

        def fail() -> None:
            raise OSError("out of reach")

        monkeypatch.setattr(service.trials, "refresh", fail)
        failed = 'nearline_refresh_failures_total{what="releases"} 1.0'
        eventually(lambda: failed in client.get("/metrics").text)
        assert client.get("/v1/trending").status_code == 200


class SlowReader:
    """Reads a trending list when it is told to go on."""

    def __init__(self, now: datetime) -> None:
        self.reads, self.begun, self.goes_on = 0, Event(), Event()
        self.found = Trending(("i1",), (1.0,), now, now + timedelta(days=1))

    def trending(self) -> Trending:
        self.reads += 1
        self.begun.set()
        self.goes_on.wait(10)
        return self.found


def test_of_many_threads_one_reads_the_trending_list(world: Any) -> None:
    reader: Any = SlowReader(world.now)
    trends, later = TrendingList(reader), world.now + timedelta(minutes=1)
    with ThreadPoolExecutor(8) as threads:
        first = [threads.submit(trends.at, world.now) for _ in range(8)]
        reader.goes_on.set()
        assert [each.result() for each in first] == [(reader.found, None)] * 8
        assert reader.reads == 1
        reader.begun.clear()
        reader.goes_on.clear()
        slow = threads.submit(trends.at, later)
        reader.begun.wait(10)
        assert trends.at(later) == (reader.found, None)  # at once, by the last one
        reader.goes_on.set()
        assert slow.result() == (reader.found, None)
    assert reader.reads == 2
