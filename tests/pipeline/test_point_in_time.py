"""Every feature of every moment equals a naive reference that sees only the events before it.

Random streams (late, twice, out of order, with gaps of minutes to weeks) go through Spark and dbt,
a long window, an hour alone and another long window. A late event changes what was known, so the
reference is asked twice: about what had arrived after the hour, and about all of it at the end.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from nearline.domains import BUILT_IN, Domain, load_domain
from nearline.lake import Lake
from nearline.schema import EVENT_SCHEMA, ITEM_SCHEMA, RAW_SCHEMA
from nearline.settings import settings
from nearline.sources.dataset import append_raw, upsert_items
from nearline.windows import HOUR, Window
from pipeline.marts import build_marts
from spark_jobs.jobs import run_features
from tests.pipeline import naive

START = datetime(2026, 1, 3, tzinfo=UTC)
ALONE = Window.of_hour(START + 860 * HOUR)
WINDOWS = (Window(START, ALONE.start), ALONE, Window(ALONE.end, START + 1000 * HOUR))
ITEMS = {
    "alien": ["horror", "space"],
    "brazil": ["space"],
    "casablanca": ["romance", "war"],
    "dune": ["space", "war"],
    "eden": [],
}
STRANGER = "person"
"""No item of the catalogue: only event types that need no item may name it."""
QUERIES = ["Red  shoes", "red shoes", " HAT", "hat", "coat", "x" * 120]
GAPS = [timedelta(seconds=1), timedelta(minutes=9), timedelta(minutes=30), timedelta(minutes=31)]
ROWS = 25
SEQUENCE_LENGTH = 7


def stream(domain: Domain, seed: int) -> list[dict[str, Any]]:
    """Good raw rows: bursts of a user, many of them around a full hour; received late at times."""
    random, rows = Random(seed), []
    for _ in range(90):
        user = random.choice(["ada", "bob", "cyd", "dan"])
        # Few in the middle: windows of 7 and of 30 days end without new events.
        hours = random.choice([random.uniform(0, 150), random.uniform(650, 998)])
        at = START + timedelta(hours=round(hours), minutes=random.choice([-20, -1, 0, 17]))
        at = max(at, START) + timedelta(microseconds=random.randrange(10**6))
        for _ in range(random.randrange(1, 6)):
            rows.append(event(random, domain, f"e{len(rows)}", user, at))
            at += random.choice(GAPS)
    twice = [{**row, "received_ts": row["received_ts"] + HOUR} for row in rows[::9]]
    rows += [{**row, "session_id": "again"} for row in twice]
    rows = [row for row in rows if row["received_ts"] < WINDOWS[-1].end]
    random.shuffle(rows)
    return rows


def event(random: Random, domain: Domain, key: str, user: str, at: datetime) -> dict[str, Any]:
    name = random.choice(list(domain.event_types))
    kind = domain.event_types[name]
    item = random.choice([*ITEMS, *([] if kind.requires_item else [None, STRANGER])])
    value = kind.value and round(random.uniform(kind.value.min, min(kind.value.max, 99)), 2)
    if kind.value and not kind.value.required:
        value = random.choice([value, None])
    late = random.choice([0, 0, 0, 1, 7, 40]) * HOUR
    return {
        "event_id": key,
        "user_id": user,
        "item_id": item,
        "event_type": name,
        "event_ts": at.isoformat(),
        "value": None if value is None else repr(value),
        "query": random.choice(QUERIES) if name == "search" else None,
        "source": "test",
        "received_ts": at + late,
    }


def clean(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows as events; of those with one id the first that arrived counts."""
    first = {row["event_id"]: row for row in sorted(rows, key=lambda r: r["received_ts"])[::-1]}
    frame = pd.DataFrame(first.values(), columns=EVENT_SCHEMA.names)
    frame["event_ts"] = pd.to_datetime(frame.event_ts, utc=True, format="ISO8601")
    return frame.assign(value=frame.value.astype(float))


@pytest.fixture(scope="module", params=BUILT_IN)
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, spark: object
) -> Iterator[list[tuple[pd.DataFrame, dict[str, list[dict[str, Any]]]]]]:
    """What had arrived, and all features then: after the hour alone, and at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEARLINE_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("NEARLINE_DOMAIN", request.param)
        patch.setenv("NEARLINE_SEQUENCE_LENGTH", str(SEQUENCE_LENGTH))
        settings.cache_clear()
        lake, rows = Lake.open(), stream(load_domain(request.param), seed=len(request.param))
        items = [
            {"item_id": i, "title": i, "categories": c, "created_ts": START + 100 * HOUR}
            for i, c in ITEMS.items()
        ]
        upsert_items(lake, pa.Table.from_pylist(items, schema=ITEM_SCHEMA))
        arrived = pa.Table.from_pylist(rows, schema=RAW_SCHEMA)
        append_raw(lake, arrived, until=WINDOWS[-1].end)
        lake.mark_complete("raw", Window(START, WINDOWS[-1].end), rows=len(rows))
        found = []
        for window in WINDOWS:
            run_features(window)
            build_marts(window)
            known = [row for row in rows if row["received_ts"] < window.end]
            found.append((clean(known), features(lake)))
        yield found[1:]
    settings.cache_clear()


def features(lake: Lake) -> dict[str, list[dict[str, Any]]]:
    """All rows of each feature dataset."""
    names = (
        *("user_activity", "user_habits", "user_category_affinity", "user_searches"),
        *("user_sequence", "item_popularity", "item_conversion", "trending"),
    )
    return {
        name: [
            row
            for path in lake.files(f"features/{name}")
            for row in pyarrow.parquet.read_table(path, partitioning=None).to_pylist()
        ]
        for name in names
    }


def reference(name: str) -> Callable[[pd.DataFrame, str, datetime, Domain], dict[str, Any]]:
    """What a row of a dataset must say."""
    created = dict.fromkeys(ITEMS, START + 100 * HOUR)
    return {
        "user_activity": naive.of_user,
        "user_habits": lambda events, key, at, _: naive.habits(events, key, at),
        "user_category_affinity": lambda *asked: naive.affinity(*asked, ITEMS),
        "user_searches": lambda events, key, at, _: naive.searches(events, key, at),
        "user_sequence": lambda *asked: naive.sequence(*asked, SEQUENCE_LENGTH),
        "item_popularity": lambda events, key, at, domain: naive.of_item(
            events, key, at, domain, created.get(key)
        ),
        "item_conversion": naive.conversion,
    }[name]


def near(value: Any) -> Any:
    """Equal but for the last of six decimals."""
    if isinstance(value, float) or (
        isinstance(value, list) and value and isinstance(value[0], float)
    ):
        return pytest.approx(value, abs=2e-6, rel=1e-9)
    return value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("user_activity", "user_id"),
        ("user_habits", "user_id"),
        ("user_category_affinity", "user_id"),
        ("user_searches", "user_id"),
        ("user_sequence", "user_id"),
        ("item_popularity", "item_id"),
        ("item_conversion", "item_id"),
    ],
)
def test_features_are_those_of_the_events_before(told: Any, name: str, key: str) -> None:
    domain = load_domain(settings().domain)
    for events, rows in told:
        found = rows[name]
        assert found or (name == "user_searches" and "search" not in domain.event_types)
        for row in Random(name).sample(found, min(ROWS, len(found))):
            asked = {key: row[key], "feature_ts": row["feature_ts"]}
            expected = reference(name)(events, *asked.values(), domain)
            assert row == asked | {column: near(value) for column, value in expected.items()}


@pytest.mark.slow
def test_trends_are_those_of_the_events_before(told: Any) -> None:
    domain = load_domain(settings().domain)
    for events, rows in told:
        for row in Random(1).sample(rows["trending"], ROWS):
            expected = naive.trending(events, row["feature_ts"], domain, ITEMS)
            assert dict(zip(row["item_ids"], row["scores"], strict=True)) == pytest.approx(
                expected, abs=2e-5
            )
            assert row["scores"] == sorted(row["scores"], reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "key", "hours"),
    [
        ("user_activity", "user_id", (0, 1, 24, 168, 720)),
        ("user_habits", "user_id", (0, 24, 168, 720)),
        ("item_popularity", "item_id", (0, 1, 24, 168, 720)),
        ("item_conversion", "item_id", (0, 1, 24, 168, 720)),
    ],
)
def test_a_row_is_there_whenever_something_changed(
    told: Any, name: str, key: str, hours: tuple[int, ...]
) -> None:
    for (events, rows), end in zip(told, (ALONE.end, WINDOWS[-1].end), strict=True):
        active = zip(events[key], events.event_ts.dt.floor("h") + HOUR, strict=True)
        expected = {(k, t + h * HOUR) for k, t in active if k is not None for h in hours}
        found = [(row[key], row["feature_ts"]) for row in rows[name]]
        assert len(found) == len(set(found))
        assert set(found) == {(k, t) for k, t in expected if t <= end}
