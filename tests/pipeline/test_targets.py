"""DuckDB and Spark build the same marts, down to the byte."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from nearline.domains import load_domain
from nearline.intake.impressions import IMPRESSION_SCHEMA, IMPRESSIONS
from nearline.lake import Lake, hour_groups
from nearline.settings import settings
from nearline.windows import HOUR, Window
from pipeline.marts import EXPORTS, build_marts

DOMAIN = "commerce"  # it has searches and values
START = datetime(2026, 1, 1, tzinfo=UTC)
HISTORY = Window(START, START + 800 * HOUR)
WINDOW = Window(HISTORY.end - 30 * HOUR, HISTORY.end)
CATEGORIES = {f"item{n}": [f"kind{n % 3}", f"kind{n % 5}"] for n in range(12)}


def stream(domain: str, events: int, seed: int) -> list[dict[str, Any]]:
    """Events anywhere in the history, denser towards its end."""
    random, types = Random(seed), load_domain(domain).event_types
    rows = []
    for n in range(events):
        kind = random.choice(list(types))
        happened = HISTORY.end - 800 * random.random() ** 3 * HOUR - timedelta(microseconds=1)
        value = types[kind].value
        rows.append(
            {
                "event_id": f"e{n}",
                "user_id": f"user{random.randrange(8)}",
                "item_id": random.choice(list(CATEGORIES)) if types[kind].requires_item else None,
                "event_type": kind,
                "event_ts": happened,
                "value": round(random.uniform(value.min, value.max), 2) if value else None,
                "query": random.choice(["red", "red shoes", "hat"]) if kind == "search" else None,
                "received_ts": happened + timedelta(minutes=random.choice([0, 0, 90])),
                "request_id": f"r{n // 2}",
            }
        )
    return rows


def write_shown(lake: Lake) -> None:
    """Lists of the last days, some drawn by lot, some for nobody that is known."""
    random = Random(5)
    rows = [
        {
            "request_id": f"r{n}",
            "user_id": f"user{random.randrange(8)}" if n % 2 else None,
            "surface": random.choice(["home", None]),
            "item_ids": random.sample(list(CATEGORIES), 8) if n % 10 else [],
            "sources": ["encoder", "content"] * 4 if n % 10 else [],
            "propensities": [1.0, *[0.01] * 7] if n % 3 else None,
            "received_ts": HISTORY.end - 50 * random.random() * HOUR - timedelta(microseconds=1),
        }
        for n in range(200)
    ]
    shown = pa.Table.from_pylist(rows, schema=IMPRESSION_SCHEMA)
    for number, (hour, part) in enumerate(hour_groups(shown, "received_ts")):
        lake.write_hour(IMPRESSIONS, hour, part if number else part.drop_columns(["propensities"]))


@pytest.mark.slow
def test_spark_builds_what_duckdb_builds(
    spark: object,
    clean_lake: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {}
    for target in ("duckdb", "spark"):
        home = tmp_path / target
        monkeypatch.setenv("NEARLINE_HOME", str(home))
        monkeypatch.setenv("NEARLINE_DOMAIN", DOMAIN)
        monkeypatch.setenv("NEARLINE_DBT_TARGET", target)
        settings.cache_clear()
        lake = Lake.open()
        clean_lake(lake, stream(DOMAIN, 400, seed=7), CATEGORIES, HISTORY)
        write_shown(lake)
        report = build_marts(WINDOW)
        assert all(rows for dataset, rows in report.rows.items() if "searches" not in dataset)
        found[target] = {
            path.removeprefix(lake.root): Path(path).read_bytes()
            for each in EXPORTS
            for path in lake.files(each.dataset)
        }
        assert not (home / "spark").exists()
    settings.cache_clear()
    assert found["spark"] == found["duckdb"]
