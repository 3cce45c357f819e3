"""Real processes that share one installation: what one takes in, all answer from."""

import signal
from datetime import UTC, datetime
from typing import Any

import httpx

ITEMS = tuple(f"i{n}" for n in range(12))
ANN = "/v1/users/ann/recommendations?limit=100"


def shown(url: str) -> set[str]:
    """What ann is shown, asked over a connection of its own."""
    answer = httpx.get(url + ANN, timeout=30).json()
    return {item["item_id"] for item in answer["items"]}


def play(event_id: str, item_id: str) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "user_id": "ann",
        "item_id": item_id,
        "event_type": "play",
        "event_ts": datetime.now(UTC).isoformat(),
        "value": 1.0,
    }


def new_item(item_id: str, **changes: Any) -> dict[str, Any]:
    return {"item_id": item_id, "title": "New", "created_ts": "2026-01-01T00:00:00Z"} | changes


def test_what_one_process_takes_changes_the_next_answer_of_another(serving: Any) -> None:
    with serving() as (first_process, first), serving() as (_, second):
        assert shown(first) == shown(second) == set(ITEMS)
        for turn, (to, other) in enumerate([(first, second), (second, first), (first, second)]):
            posted = httpx.post(f"{to}/v1/events", json=play(f"e{turn}", f"i{turn}"), timeout=30)
            assert posted.json()["accepted"] == 1
            touched = {f"i{n}" for n in range(turn + 1)}
            assert shown(other) == shown(to) == set(ITEMS) - touched
        put = [new_item("i9", available=False), new_item("new")]
        assert httpx.put(f"{second}/v1/items", json=put, timeout=30).json()["accepted"] == 2
        expected = {*ITEMS, "new"} - {"i0", "i1", "i2", "i9"}
        assert shown(first) == shown(second) == expected

        # Killed without a word, and started again: all that was confirmed is there.
        first_process.send_signal(signal.SIGKILL)
        first_process.wait(30)
        assert shown(second) == expected
        with serving() as (_, third):
            assert shown(third) == expected


def test_workers_share_a_port_their_events_and_their_figures(serving: Any) -> None:
    with serving("--workers", "2") as (process, url):
        httpx.post(f"{url}/v1/events", json=play("e0", "i0"), timeout=30)
        answers = [shown(url) for _ in range(20)]
        figures = httpx.get(f"{url}/metrics", timeout=30).text
        assert process.poll() is None
    assert all(answer == set(ITEMS) - {"i0"} for answer in answers)
    count = 'nearline_requests_total{endpoint="/v1/users/{user_id:path}/recommendations"'
    assert f'{count},status="200"}} 20.0' in figures
    assert 'nearline_events_total{status="accepted"} 1.0' in figures
    assert figures.count("nearline_release_info{") == 1
