"""Fixtures that every room's tests share."""

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Tables are as wide as they need to be, whether or not the tests have a terminal.
os.environ["COLUMNS"] = "200"

# A training that MLflow follows makes a database; the tests of that ask for it.
os.environ["NEARLINE_TRACK"] = "none"

# Nor is a sentence encoder used that happens to be installed, but where a test asks for it.
os.environ["NEARLINE_TEXT_ENCODER"] = "none"

# Feast, once imported, makes every later import of prometheus_client count into files that
# outlive their app, in the processes that it starts too; serving imports it first, as is done here.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
import prometheus_client  # noqa: F401
import pytest

from nearline.settings import Settings, settings

# Spark's gateway tells of its end when the tests' output is closed already.
logging.getLogger("py4j").setLevel(logging.ERROR)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from benchmarks.cluster import Cluster


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty NEARLINE_HOME."""
    monkeypatch.setenv("NEARLINE_HOME", str(tmp_path))
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


@pytest.fixture(scope="session")
def spark() -> Iterator["SparkSession"]:
    """One Spark session for all tests: jobs use the session that runs, and leave it running."""
    from spark_jobs.session import spark_session

    with spark_session(Settings(spark_master="local[2]")) as session:
        yield session


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Cluster]":
    """A standalone Spark cluster on loopback, ended with the tests."""
    if not (shutil.which("java") or "JAVA_HOME" in os.environ):
        pytest.skip("Spark needs Java: install Java 17 or set JAVA_HOME")
    from benchmarks.cluster import spark_cluster

    with spark_cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found
