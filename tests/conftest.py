"""Fixtures that every room's tests share."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Cluster:
    """A standalone Spark cluster on loopback; each worker runs its executors below its folder."""

    master: str
    workers: tuple[Path, ...]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A master and two workers of one core each, ended with the tests."""
    if not (shutil.which("java") or "JAVA_HOME" in os.environ):
        pytest.skip("Spark needs Java: install Java 17 or set JAVA_HOME")
    port = free_port()
    found = Cluster(
        f"spark://127.0.0.1:{port}",
        tuple(tmp_path_factory.mktemp(f"worker{n}") for n in range(2)),
    )
    with ExitStack() as running:
        options = ["--host", "127.0.0.1", "--webui-port", "0"]
        running.enter_context(daemon("master.Master", *options, "--port", str(port)))
        wait_for_port(port)
        for folder in found.workers:
            size = ["--cores", "1", "--memory", "1g", "--work-dir", str(folder)]
            running.enter_context(daemon("worker.Worker", *options, *size, found.master))
        yield found


@contextmanager
def daemon(name: str, *arguments: str) -> Iterator[None]:
    """A part of a Spark cluster as a process; it and all that it started are gone at the end."""
    import pyspark

    spark_class = Path(pyspark.__file__).parent / "bin" / "spark-class"
    small = {"SPARK_DAEMON_MEMORY": "256m", "SPARK_DAEMON_JAVA_OPTS": "-XX:+UseSerialGC"}
    process = subprocess.Popen(
        [str(spark_class), f"org.apache.spark.deploy.{name}", *arguments],
        env=os.environ | small,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, *, patience_s: float = 180) -> None:
    """Returns once something listens there."""
    until = time.monotonic() + patience_s
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
