"""A user is forgotten by a whole ring, and computing it all again does not bring the user back."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from nearline.lake import EVENTS, RAW, Lake
from nearline.schema import EVENT_SCHEMA, RAW_SCHEMA, USER_ID
from nearline.settings import settings
from nearline.sources.dataset import append_raw, upsert_items
from nearline.sources.synthetic import Stream, StreamSpec
from nearline.windows import Window
from pipeline import steps
from pipeline.forget import forget
from pipeline.housekeeping import tidy_lake
from pipeline.online import feature_store, stored_of
from training.dataset import read_events

pytestmark = pytest.mark.slow
END = datetime(2026, 3, 9, tzinfo=UTC)
NOW = datetime(2026, 3, 9, 12, tzinfo=UTC)


def features(window: Window) -> None:
    steps.close_hours(window)
    steps.spark_features(window)
    steps.dbt_marts(window)
    steps.materialize(window)


def traces(home: Path, user: str) -> list[str]:
    """The files that hold an id in their bytes, or in a column of parquet."""
    found = []
    for path in filter(Path.is_file, home.rglob("*")):
        held = user.encode() in path.read_bytes()
        if path.suffix == ".parquet":
            held |= user in str(pq.ParquetFile(path).read().to_pydict())
        if held:
            found.append(str(path.relative_to(home)))
    return found


def of_users(lake: Lake) -> dict[str, str]:
    """The checksum of every partition that tells users apart."""
    paths = [path for path in lake.every_file() if USER_ID in pq.ParquetFile(path).schema.names]
    return {path: lake.manifest(path).sha256 for path in paths}


def renamed(rows: Any) -> Any:
    """The stream with ids that nothing else can hold."""
    users = [user and f"visitor-{user}-5d1e" for user in rows[USER_ID].to_pylist()]
    return rows.set_column(rows.schema.get_field_index(USER_ID), USER_ID, [users])


@pytest.mark.usefixtures("spark")
def test_a_whole_ring_forgets(home: Path) -> None:
    feature_store.cache_clear()
    spec = StreamSpec(users=20, items=30, events=1500, days=5, end=END, seed=3)
    from nearline.domains import load_domain

    stream, lake = Stream(spec, load_domain(settings().domain)), Lake.open()
    upsert_items(lake, stream.items())
    for batch in stream.batches():
        append_raw(lake, renamed(batch))
    history = Window(spec.start, END)
    features(history)
    steps.item_neighbours(history)
    tidy_lake(history)
    raw = lake.read(RAW, schema=RAW_SCHEMA)
    counted = Counter(lake.read(EVENTS, schema=EVENT_SCHEMA)[USER_ID].to_pylist())
    [(user, most), (other, _)] = counted.most_common(2)
    places = {name.split("/dt=")[0] for name in traces(home, user)}
    assert {f"lake/partials/user_{n}" for n in ("hourly", "tail", "session_hourly")} <= places
    assert {f"lake/features/user_{n}" for n in ("activity", "habits", "sequence")} <= places
    assert any(place.startswith("lake/partials/user_state_rows") for place in places)
    assert "lake/marts/sessions" in places
    assert "user_sequence" in stored_of([user])[user]

    _, [receipt] = forget([user], clock=lambda: NOW)
    assert traces(home, user) == []
    assert receipt.removed[EVENTS].rows == most
    assert stored_of([user, other])[user] == []
    assert stored_of([user, other])[other]
    assert user not in read_events(lake, history)[USER_ID].to_pylist()

    # All of it again, and the file that it came from loaded again.
    before = of_users(lake)
    append_raw(lake, raw)
    features(history)
    tidy_lake(history)
    assert traces(home, user) == []
    assert of_users(lake) == before
    feature_store.cache_clear()
