"""Spark's classes, read and checked once for every job of this machine.

A job of an hour lives for seconds, and a third of Java's processor time goes into loading classes.
Java keeps them in a file (its dynamic class data sharing archive) and maps it instead. It passes
over an archive of another Java or of other jars: a missing or an old one costs time, nothing else.

`python -m spark_jobs.class_archive` makes it, as installing does.
"""

import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from nearline.domains import load_domain
from nearline.lake import RAW, Lake
from nearline.settings import settings
from nearline.sources.dataset import append_raw, upsert_items
from nearline.sources.synthetic import Stream, StreamSpec
from nearline.windows import HOUR, Window
from spark_jobs.jobs import run_cooccurrence, run_features
from spark_jobs.session import CLASSES, start_session

_SPEC = StreamSpec(
    users=20, items=20, events=200, days=2, end=datetime(2026, 1, 3, tzinfo=UTC), seed=1
)
_NAME = "spark_jobs.class_archive"


def make_archive() -> None:
    """Run the jobs of two days on a small stream, and keep the classes that they loaded."""
    CLASSES.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CLASSES.parent) as home:
        made = Path(home) / CLASSES.name
        kept = {k: v for k, v in os.environ.items() if not k.startswith("NEARLINE_")}
        subprocess.run(
            [sys.executable, "-c", f"import {_NAME}; {_NAME}.record({str(made)!r})"],
            env=kept | {"NEARLINE_HOME": home, "NEARLINE_SPARK_MASTER": "local[1]"},
            check=True,
            capture_output=True,  # Java writes the file as it ends, and holds these until then
        )
        made.replace(CLASSES)


def record(path: str) -> None:
    """Run the jobs in a session whose Java keeps what it loaded in `path`."""
    stream, lake = Stream(_SPEC, load_domain(settings().domain)), Lake.open()
    upsert_items(lake, stream.items())
    for day in stream.batches():
        append_raw(lake, day)
    window = Window(_SPEC.start, _SPEC.end)
    lake.mark_complete(RAW, window, rows=_SPEC.events)
    spark = start_session(settings(), f"-XX:ArchiveClassesAtExit={path}")
    for part in (Window(window.start, window.end - HOUR), Window.trailing(window.end, hours=1)):
        run_features(part)
    run_cooccurrence(window)
    spark.stop()


if __name__ == "__main__":
    make_archive()
