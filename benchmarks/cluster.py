"""A standalone Spark cluster on loopback: a master and two workers of one core each."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyspark

_SPARK_CLASS = Path(pyspark.__file__).parent / "bin" / "spark-class"
_SMALL = {"SPARK_DAEMON_MEMORY": "256m", "SPARK_DAEMON_JAVA_OPTS": "-XX:+UseSerialGC"}


@contextmanager
def spark_cluster(folder: Path, *, memory: str = "1g") -> Iterator[str]:
    """A cluster whose workers run their executors below `folder`; yields the master's address.

    It and all that it started are gone at the end.
    """
    port = _free_port()
    master = f"spark://127.0.0.1:{port}"
    options = ["--host", "127.0.0.1", "--webui-port", "0"]
    with ExitStack() as running:
        running.enter_context(_daemon("master.Master", *options, "--port", str(port)))
        _wait_for_port(port)
        for number in range(2):
            size = ["--cores", "1", "--memory", memory, "--work-dir", str(folder / str(number))]
            running.enter_context(_daemon("worker.Worker", *options, *size, master))
        yield master


@contextmanager
def _daemon(name: str, *arguments: str) -> Iterator[None]:
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int, *, patience_s: float = 60) -> None:
    until = time.monotonic() + patience_s
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
