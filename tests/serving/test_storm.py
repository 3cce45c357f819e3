"""A real server in trouble: its disk gets full, and has room again."""

import resource
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from nearline.intake import Follower, accepted_events
from nearline.settings import settings


def batch(turn: int) -> list[dict[str, Any]]:
    return [
        {
            "event_id": f"e{turn}-{n}",
            "user_id": f"u{n}",
            "item_id": f"i{n}",
            "event_type": "play",
            "event_ts": datetime.now(UTC).isoformat(),
            "value": 1.0,
        }
        for n in range(7)
    ]


def stored() -> Counter[str]:
    """How often each accepted event lies in the journals."""
    since = datetime.now(UTC) - timedelta(hours=1)
    rows = Follower(settings().intake, accepted_events, since=since).poll(datetime.now(UTC))
    return Counter(event.event_id for _, event in rows)


def files_end_at(process: Any, size: int) -> None:
    """From now on a file of the process takes so many bytes."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_a_disk_that_gets_full_costs_nothing_that_was_acknowledged(serving: Any) -> None:
    acknowledged, refused = [], []
    with serving() as (process, url), httpx.Client(base_url=url, timeout=30) as client:
        files_end_at(process, 20_000)
        for turn in range(30):
            rows = batch(turn)
            answer = client.post("/v1/events", json=rows)
            if answer.status_code == 200:
                acknowledged += rows
            else:
                assert (answer.status_code, answer.json()["code"]) == (507, "not_kept")
                refused.append(rows)
        # A disk that is full all the while, not a file that has its length.
        files_end_at(process, 10)
        for _ in range(50):
            assert client.post("/v1/events", json=batch(99)).status_code == 507
            assert client.get("/v1/trending").status_code == 200
        assert stored() == Counter(row["event_id"] for row in acknowledged)
        files_end_at(process, resource.RLIM_INFINITY)
        for rows in refused:
            assert client.post("/v1/events", json=rows).json()["accepted"] == 7
        again = client.post("/v1/events", json=acknowledged).json()
    assert acknowledged
    assert refused
    assert again["duplicate"] == len(acknowledged)
    everything = acknowledged + [row for rows in refused for row in rows]
    assert stored() == Counter(row["event_id"] for row in everything)
