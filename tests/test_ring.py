"""The whole ring on a small stream, through the functions that the DAGs call.

It turns in the domain `commerce`; the DAGs take `entertainment` round, in tests/dags/test_runs.py.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient

from nearline.domains import Domain, load_domain
from nearline.lake import EVENTS, QUARANTINE, Lake
from nearline.releases import ReleaseStore
from nearline.schema import EVENT_SCHEMA, QUARANTINE_SCHEMA
from nearline.settings import settings
from nearline.sources.dataset import append_raw, upsert_items
from nearline.sources.synthetic import Stream, StreamSpec
from nearline.windows import HOUR, Window, hour_floor
from pipeline import steps
from pipeline.online import feature_store
from serving.api import create_app

pytestmark = [pytest.mark.slow, pytest.mark.e2e]
DOMAIN = "commerce"


@dataclass(frozen=True)
class Ring:
    """A ring that has turned once: a night is learned and live."""

    domain: Domain
    nightly: str
    history: Window


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ring]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEARLINE_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("NEARLINE_DOMAIN", DOMAIN)
        settings.cache_clear()
        feature_store.cache_clear()
        now = datetime.now(UTC)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        spec = StreamSpec(users=60, items=80, events=4000, days=6, end=midnight, seed=3)
        domain = load_domain(DOMAIN)
        stream, lake = Stream(spec, domain), Lake.open()
        upsert_items(lake, stream.items())
        for day in stream.batches():
            append_raw(lake, day)
        history = Window(spec.start, max(hour_floor(now), spec.end))
        features(history)
        steps.item_neighbours(history)
        nightly = steps.train(history)
        go_live(nightly)
        yield Ring(domain, nightly, history)
    settings.cache_clear()
    feature_store.cache_clear()


def features(window: Window) -> None:
    steps.close_hours(window)
    steps.spark_features(window)
    steps.dbt_marts(window)
    steps.materialize(window)


def go_live(version: str) -> None:
    assert steps.passed(version), ReleaseStore.open().load(version).manifest.reasons
    steps.push(version)
    steps.promote(version)


def event(domain: Domain, event_id: str, user_id: str, item_id: str) -> dict[str, Any]:
    kind = domain.positive[0]
    value = domain.event_types[kind].value
    return {
        "event_id": event_id,
        "user_id": user_id,
        "item_id": item_id,
        "event_type": kind,
        "event_ts": datetime.now(UTC).isoformat(),
        "value": value and (value.min + value.max) / 2,
    }


def ids(http: TestClient, path: str, **params: Any) -> list[str]:
    answer = http.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return [item["item_id"] for item in answer.json()["items"]]


def test_the_ring_turns_and_feedback_comes_round(ring: Ring) -> None:
    user = Lake.open().read(EVENTS, schema=EVENT_SCHEMA)["user_id"][-1].as_py()
    mine = f"/v1/users/{user}/recommendations"
    with TestClient(create_app()) as http:
        assert http.get("/v1/release").json()["version"] == ring.nightly
        before = ids(http, mine)
        assert len(before) == 10
        assert http.get(mine).json()["source"] in {"live", "stored"}
        assert http.get("/v1/users/nobody/recommendations").json()["source"] == "trending"
        assert ids(http, f"/v1/items/{before[0]}/similar")
        session = {"events": [{"item_id": item} for item in before[:3]]}
        assert http.post("/v1/sessions/recommendations", json=session).json()["source"] == "live"

        far = ids(http, mine, limit=60)[-3:]
        posted = [event(ring.domain, f"e{n}", user, item) for n, item in enumerate(far)]
        unknown = event(ring.domain, "odd", user, "no-such-item")
        answer = http.post("/v1/events", json=[*posted, unknown, posted[0]]).json()
        assert (answer["accepted"], answer["duplicate"]) == (4, 1)
        after = http.get(mine).json()
        assert after["source"] == "live"
        assert [item["item_id"] for item in after["items"]] != before

        hour = Window(ring.history.end, hour_floor(datetime.now(UTC)) + HOUR)
        features(hour)
        accepted = Lake.open().read(EVENTS, hour, schema=EVENT_SCHEMA)["event_id"].to_pylist()
        assert accepted == ["e0", "e1", "e2"]
        refused = Lake.open().read(QUARANTINE, hour, schema=QUARANTINE_SCHEMA).to_pylist()
        assert [(row["event_id"], row["reason"]) for row in refused] == [("odd", "unknown_item")]

        hourly = steps.finetune(hour)
        assert hourly is not None
        manifest = ReleaseStore.open().load(hourly).manifest
        assert (manifest.kind, manifest.parent, manifest.base) == ("hourly", *[ring.nightly] * 2)
        assert manifest.window.end == hour.end
        go_live(hourly)
        assert wait_for_release(http, hourly)
        assert http.get(mine).json()["release"] == hourly


def wait_for_release(http: TestClient, version: str) -> bool:
    for _ in range(100):
        if http.get("/v1/release").json()["version"] == version:
            return True
        time.sleep(0.1)
    return False
