"""One Spark session, set up for jobs of seconds on one machine or for any master.

Every executor needs this code and its Python at the paths that they have here, and the lake.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nearline.errors import StepFailed
from nearline.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CODE = Path(__file__).parents[1]
CLASSES = Path(sys.prefix) / "share" / "nearline" / "spark.jsa"
"""Spark's classes as Java keeps them, if `spark_jobs.class_archive` made the file."""

QUIET_LOGS = Path(__file__).with_name("log4j2.properties")

ANYWHERE = {
    "spark.executorEnv.PYTHONPATH": str(CODE),
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "50000",
    "spark.ui.enabled": "false",
}

# A local job lives for seconds: the first compiler tier, the serial collector and plans that do
# not adapt start faster than they could ever pay back. With that tier alone Java keeps only 48 MB
# for compiled code, which a process of many jobs fills and then fails: it gets the usual room.
ON_ONE_MACHINE = {
    "spark.sql.adaptive.enabled": "false",
}
QUICK_JAVA = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseSerialGC"

ON_LOOPBACK = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}


@contextmanager
def spark_session(settings: Settings) -> Iterator["SparkSession"]:
    """The session that runs in this process, left running, or else a new one, stopped at the end.

    A new one runs on `settings.spark_master`. Raises StepFailed when Spark does not start (no Java,
    a master that does not answer).
    """
    from pyspark.sql import SparkSession

    running = SparkSession.getActiveSession()
    spark = running or start_session(settings)
    try:
        yield spark
    finally:
        if running is None:
            spark.stop()


def start_session(settings: Settings, java: str | None = None) -> "SparkSession":
    """A new session, with other options of Java for a local one where `java` gives some.

    Raises StepFailed when Spark does not start.
    """
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("nearline").master(settings.spark_master)
    for name, value in session_options(settings, java).items():
        builder = builder.config(name, value)
    try:
        return builder.getOrCreate()
    except (PySparkException, OSError, RuntimeError) as error:
        raise StepFailed(
            f"Spark did not start on NEARLINE_SPARK_MASTER={settings.spark_master!r}: {error}. "
            "It needs Java 17 on the PATH or JAVA_HOME, and a master that answers"
        ) from error


def session_options(settings: Settings, java: str | None = None) -> dict[str, str]:
    """The Spark options for these settings; `java` instead of the archive of classes."""
    master = settings.spark_master
    options = ANYWHERE | {
        "spark.driver.memory": settings.spark_memory,
        "spark.ui.showConsoleProgress": str(sys.stderr.isatty()).lower(),
    }
    if on_loopback(master):
        options |= ON_LOOPBACK
    if master.startswith("local"):
        options |= ON_ONE_MACHINE | {"spark.sql.shuffle.partitions": str(local_cores(master))}
        logs = f"-Dlog4j2.configurationFile={QUIET_LOGS}"
        options["spark.driver.extraJavaOptions"] = f"{QUICK_JAVA} {logs} {java or _classes()}"
    else:
        options["spark.executor.memory"] = settings.spark_executor_memory
    return options


def _classes() -> str:
    """Java maps the archive where there is one, and passes over one that is not its own."""
    quiet = "-Xlog:cds=off -Xlog:cds+dynamic=off"
    return f"-XX:SharedArchiveFile={CLASSES} {quiet}" if CLASSES.is_file() else ""


def on_loopback(master: str) -> bool:
    """Whether a master runs on this machine alone: no other can reach it, or need reach us."""
    return master.startswith("local") or urlsplit(master).hostname in ("127.0.0.1", "localhost")


def local_cores(master: str) -> int:
    """How many tasks run at once on a `local`, `local[n]` or `local[*]` master."""
    inside = master.removeprefix("local").strip("[]").split(",")[0]
    return len(os.sched_getaffinity(0)) if inside == "*" else int(inside or 1)
