"""A small world for Spark: three films, events told in hours after START."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from nearline.lake import EVENTS, RAW, Lake
from nearline.schema import ITEM_SCHEMA, RAW_SCHEMA
from nearline.settings import settings
from nearline.sources.dataset import append_raw, upsert_items
from nearline.windows import HOUR, Window
from spark_jobs.clean import CleanReport, clean_hours
from spark_jobs.jobs import FeaturesReport, run_features
from spark_jobs.session import spark_session

START = datetime(2026, 1, 10, tzinfo=UTC)
CATEGORIES = {"alien": ["horror", "space"], "brazil": ["space"], "casablanca": None}


class World:
    """A lake with a catalogue, to which rows arrive."""

    def __init__(self) -> None:
        self.lake = Lake.open()
        items = [
            {"item_id": i, "title": i, "categories": c, "created_ts": START, "available": True}
            for i, c in CATEGORIES.items()
        ]
        upsert_items(self.lake, pa.Table.from_pylist(items, schema=ITEM_SCHEMA))

    @staticmethod
    def at(hours: float) -> datetime:
        return START + timedelta(hours=hours)

    def window(self, first: int, last: int) -> Window:
        return Window(START + first * HOUR, START + last * HOUR)

    def row(self, event_id: str | None, hours: float, **change: Any) -> dict[str, Any]:
        """A good raw row that happened and arrived at `hours`; `received` tells another arrival."""
        received = self.at(change.pop("received", hours))
        good = {
            "event_id": event_id,
            "user_id": "ada",
            "item_id": "alien",
            "event_type": "play",
            "event_ts": self.at(hours).isoformat(),
            "value": "0.5",
            "source": "test",
            "received_ts": received,
        }
        return good | change

    def arrive(self, *rows: dict[str, Any]) -> None:
        append_raw(self.lake, pa.Table.from_pylist(list(rows), schema=RAW_SCHEMA))

    def run(self, first: int, last: int) -> FeaturesReport:
        """Close the hours from `first` to `last` and run them."""
        self.lake.mark_complete(RAW, self.window(first, last), rows=0)
        return run_features(self.window(first, last))

    def clean(self, first: int, last: int) -> CleanReport:
        """Close the hours from `first` to `last` and clean them, without sequences of users."""
        window = self.window(first, last)
        self.lake.mark_complete(RAW, window, rows=0)
        with spark_session(settings()) as spark:
            report = clean_hours(spark, window)
        self.lake.mark_complete(EVENTS, window, rows=0)
        return report

    def rows(self, dataset: str, first: int = -1000, last: int = 1000) -> list[dict[str, Any]]:
        paths = self.lake.files(dataset, self.window(first, last))
        return [
            row
            for path in paths
            for row in pa.parquet.read_table(path, partitioning=None).to_pylist()
        ]

    def files(self) -> dict[str, bytes]:
        """Everything in the lake but the ledger, by its path."""
        root = Path(self.lake.root)
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*.parquet"))
        }


@pytest.fixture(scope="session")
def new_world(spark: object) -> Callable[[], World]:
    """A world in the home that the settings name."""
    return World


@pytest.fixture
def world(new_world: Callable[[], World], home: Path) -> World:
    return new_world()


@pytest.fixture
def other_worlds(
    spark: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], World]]:
    """Makes worlds apart from each other; the newest one is the one that runs."""
    made = 0

    def make() -> World:
        nonlocal made
        made += 1
        monkeypatch.setenv("NEARLINE_HOME", str(tmp_path / f"world{made}"))
        settings.cache_clear()
        return World()

    yield make
    settings.cache_clear()
