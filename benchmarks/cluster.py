"""A standalone Spark cluster on loopback: a master and two workers of one core each."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyspark

from benchmarks.harness import free_port

_SPARK_CLASS = Path(pyspark.__file__).parent / "bin" / "spark-class"
_SMALL = {"SPARK_DAEMON_MEMORY": "256m", "SPARK_DAEMON_JAVA_OPTS": "-XX:+UseSerialGC"}


@dataclass(frozen=True)
class Cluster:
    """The address of a `master`, and the folder below which each worker runs its executors."""

    master: str
    workers: tuple[Path, ...]


@contextmanager
def spark_cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster that works below `folder`; it and all that it started are gone at the end."""
    port = free_port()
    found = Cluster(f"spark://127.0.0.1:{port}", tuple(folder / f"worker{n}" for n in range(2)))
    options = ["--host", "127.0.0.1", "--webui-port", "0"]
    with ExitStack() as running:
        running.enter_context(_daemon("master.Master", *options, "--port", str(port)))
        _wait_for_port(port)
        for worker in found.workers:
            size = ["--cores", "1", "--memory", "1g", "--work-dir", str(worker)]
            running.enter_context(_daemon("worker.Worker", *options, *size, found.master))
        yield found


@contextmanager
def _daemon(name: str, *arguments: str) -> Iterator[None]:
    """A part of the cluster as a process, the first of a group of its own."""
    process = subprocess.Popen(
        [str(_SPARK_CLASS), f"org.apache.spark.deploy.{name}", *arguments],
        env=os.environ | _SMALL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for_port(port: int, *, patience_s: float = 180) -> None:
    """Returns once something listens there."""
    until = time.monotonic() + patience_s
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
