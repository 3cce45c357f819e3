"""The same jobs on one core and on a cluster: the same bytes in the lake.

`benchmarks.masters` compares two cores of one process as well.
"""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nearline.domains import load_domain
from nearline.lake import RAW, Lake
from nearline.settings import Settings
from nearline.sources.dataset import append_raw, upsert_items
from nearline.sources.synthetic import Stream, StreamSpec
from nearline.windows import HOUR, Window
from spark_jobs import session
from spark_jobs.session import on_loopback, session_options

JAVA_OPTIONS = "spark.driver.extraJavaOptions"
SPEC = StreamSpec(
    users=40, items=50, events=800, days=2, end=datetime(2026, 1, 14, tzinfo=UTC), seed=3
)
WINDOW = Window(SPEC.start, SPEC.end)
WINDOWS = [
    Window(WINDOW.start, WINDOW.end - 20 * HOUR),
    Window(WINDOW.end - 20 * HOUR, WINDOW.end),
]
PROGRAM = """
import sys
from nearline.windows import Window
from spark_jobs.jobs import run_cooccurrence, run_features
for window in sys.argv[2:]:
    run_features(Window.parse(*window.split("/")))
run_cooccurrence(Window.parse(*sys.argv[1].split("/")))
"""


def text(window: Window) -> str:
    return f"{window.start.isoformat()}/{window.end.isoformat()}"


def lake_of(master: str, home: Path, **settings: str) -> dict[str, bytes]:
    """All files of a lake that the jobs wrote on `master`, by their path."""
    lake, stream = Lake(str(home / "lake")), Stream(SPEC, load_domain("entertainment"))
    upsert_items(lake, stream.items())
    for rows in stream.batches():
        append_raw(lake, rows)
    lake.mark_complete(RAW, WINDOW, rows=SPEC.events)
    told = {
        "HOME": str(home),
        "SPARK_MASTER": master,
        "DOMAIN": "entertainment",
        "LATE_HOURS": "12",
        "SEQUENCE_LENGTH": "5",
        **settings,
    }
    subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(text, [WINDOW, *WINDOWS])],
        env=os.environ | {f"NEARLINE_{name}": value for name, value in told.items()},
        cwd=Path(__file__).parents[2],
        check=True,
    )
    root = Path(lake.root)
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.parquet"))
    }


@pytest.mark.long
def test_every_master_gives_the_same_bytes(cluster: Any, tmp_path: Path) -> None:
    one = lake_of("local[1]", tmp_path / "one")
    written = {path.split("/dt=")[0] for path in one}
    assert written >= {
        *("events", "partials/user_hourly", "partials/user_tail", "partials/user_state"),
        *("features/user_sequence", "partials/cooccurrence", "features/item_neighbours"),
        "partials/cooccurrence_state",
    }
    many = lake_of(cluster.master, tmp_path / "many", SPARK_EXECUTOR_MEMORY="512m")
    assert many == one
    for folder in cluster.workers:
        assert list(folder.glob("app-*/*/stderr")), f"{folder} ran no executor"


@pytest.mark.parametrize(
    ("master", "loopback"),
    [
        ("local[*]", True),
        ("spark://127.0.0.1:7077", True),
        ("spark://localhost:7077", True),
        ("spark://spark.example:7077", False),
        ("yarn", False),
        ("k8s://https://10.0.0.1:443", False),
    ],
)
def test_the_driver_hides_on_loopback_only_where_its_master_does(
    master: str, loopback: bool
) -> None:
    options = session_options(Settings(spark_master=master, spark_executor_memory="3g"))
    assert on_loopback(master) == loopback
    assert ("spark.driver.host" in options) == loopback
    assert options.get("spark.executor.memory") == (None if master == "local[*]" else "3g")


def test_java_maps_the_archive_of_classes_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def java(master: str) -> str:
        return session_options(Settings(spark_master=master)).get(JAVA_OPTIONS, "")

    archive = tmp_path / "spark.jsa"
    monkeypatch.setattr(session, "CLASSES", archive)
    assert "SharedArchiveFile" not in java("local[1]")
    archive.touch()
    assert f"-XX:SharedArchiveFile={archive} " in java("local[1]")
    assert java("spark://127.0.0.1:7077") == "", "executors of other machines have their own Java"
