"""With pseudonyms, what users do is found by their ids, and no byte under the home has one."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nearline.identity import stored_id
from nearline.intake import close_hours
from nearline.intake import forgotten as wishes
from nearline.lake import RAW, Lake
from nearline.schema import ITEM_SCHEMA, RAW_SCHEMA, USER_ID
from nearline.settings import settings
from nearline.sources.dataset import Dataset
from nearline.sources.landing import load_with_traffic
from nearline.windows import HOUR, Window
from tests.serving.conftest import NOW

ITEMS = tuple(f"i{n}" for n in range(6))
ANN = "ann-7f3a1c"
ASKED = f"/v1/users/{ANN}/recommendations?limit=100"


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEARLINE_PSEUDONYMISE", "true")
    monkeypatch.setenv("NEARLINE_ID_SECRET", "s3cret")


@pytest.fixture
def hiding(secret: None, world: Any) -> Any:
    world.catalogue(*({"item_id": i} for i in ITEMS))
    world.promote(ITEMS)
    world.store.put_sequence(stored_id(ANN), [("i1", "play", world.now - HOUR)])
    return world


def shown(client: Any, path: str = ASKED) -> set[str]:
    return {item["item_id"] for item in client.get(path).json()["items"]}


def named(home: Path) -> list[Path]:
    """The files that hold the id in their bytes or in a column."""
    found = []
    for path in filter(Path.is_file, home.rglob("*")):
        held = ANN.encode() in path.read_bytes()
        if path.suffix == ".parquet":
            held |= ANN in str(pq.ParquetFile(path).read().to_pylist())
        if held:
            found.append(path)
    return found


def test_users_are_found_by_their_ids_and_stored_by_pseudonyms(hiding: Any, home: Path) -> None:
    with hiding.client() as client:
        good = hiding.event("e1", "i2", user_id=ANN)
        refused = [good | {"event_id": "e2", "event_type": "x"}, {"user_id": {"is": ANN}}, [ANN]]
        answer = client.post("/v1/events", json=[good, *refused]).json()
        assert (answer["accepted"], answer["refused"]) == (1, 3)
        assert shown(client) == set(ITEMS) - {"i1", "i2"}
        assert client.get(f"/v1/search?q=i3&user_id={ANN}").status_code == 200
        batch = client.post("/v1/recommendations", json={"user_ids": [ANN]}).json()["lists"][0]
        assert batch["user_id"] == ANN
        assert {item["item_id"] for item in batch["items"]} <= set(ITEMS) - {"i1", "i2"}
        known = client.get(f"/v1/users/{ANN}").json()
        assert (known["user_id"], [e["item_id"] for e in known["events"]]) == (ANN, ["i2", "i1"])
        hiding.now += timedelta(minutes=1)
        close_hours(Window.of_hour(hiding.now), clock=lambda: hiding.now)
        assert named(home) == []
        users = Lake.open().read(RAW, schema=RAW_SCHEMA)[USER_ID].to_pylist()
        assert sorted(map(str, users)) == sorted([stored_id(ANN)] * 2 + ["None"] * 2)

        assert client.delete(f"/v1/users/{ANN}").status_code == 202
        assert shown(client) == set(ITEMS)
    assert [wish.user_id for wish in wishes.pending()] == [stored_id(ANN)]
    assert named(home) == []


@pytest.mark.usefixtures("secret")
def test_what_is_loaded_and_held_back_has_pseudonyms(home: Path) -> None:
    settings.cache_clear()
    rows = [
        {"event_id": f"e{n}", "user_id": ANN, "event_ts": at.isoformat(), "received_ts": at}
        for n, at in enumerate(NOW - n * HOUR for n in range(4))
    ]
    events = pa.Table.from_pylist(rows, schema=RAW_SCHEMA)
    dataset = Dataset(events, ITEM_SCHEMA.empty_table())
    loaded = load_with_traffic(dataset, NOW.replace(minute=0), 0.5, 1)
    assert (loaded.events, loaded.held_back) == (2, 2)
    assert named(home) == []
