"""Fixtures that every room's tests share."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Feast, once imported, makes every later import of prometheus_client count into files that
# outlive their app; serving imports it first, as is done here.
import prometheus_client  # noqa: F401
import pytest

from nearline.settings import Settings, settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


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
