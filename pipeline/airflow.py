"""A private Airflow: scheduler, API server and UI on loopback, all data under NEARLINE_HOME."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from nearline.errors import StepFailed
from nearline.settings import settings

POOLS = {
    "lake": "Spark and dbt write the lake and the marts: one at a time.",
    "model": "Trainings use every core: one at a time.",
}
FINISHED = ("success", "failed")

_REPOSITORY = Path(__file__).resolve().parents[1]
_START_TIMEOUT_S = 120


def environment() -> dict[str, str]:
    """The environment that makes any `airflow` command speak to the private Airflow."""
    found = settings()
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW__")}
    return inherited | {
        "AIRFLOW_HOME": str(found.home / "airflow"),
        "NEARLINE_HOME": str(found.home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(_REPOSITORY / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{_url()}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(found.airflow_port),
        "AIRFLOW__API__BASE_URL": _url(),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    }


def _url() -> str:
    return f"http://127.0.0.1:{settings().airflow_port}"


class Airflow:
    """Starts `airflow standalone`, runs DAGs through its API, and stops it again."""

    def __init__(self) -> None:
        self.home = settings().home / "airflow"
        self.url = _url()
        self._process: subprocess.Popen[bytes] | None = None
        self._http = httpx.Client(base_url=self.url, timeout=30)

    def __enter__(self) -> "Airflow":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and wait until the API answers and the DAGs are read.

        Raises StepFailed when the port is taken or nothing answers in two minutes.
        """
        if _port_taken(settings().airflow_port):
            raise StepFailed(
                f"port {settings().airflow_port} is taken: stop what listens there, or set "
                "NEARLINE_AIRFLOW_PORT to a free one"
            )
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "standalone.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "airflow", "standalone"],
                env=environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait("the API", self._login)
        for name, why in POOLS.items():
            body = {"name": name, "slots": 1, "description": why}
            if self._http.post("/api/v2/pools", json=body).status_code not in (201, 409):
                raise StepFailed(f"Airflow refused the pool {name!r}: see {self.home}")

    def login(self) -> tuple[str, str]:
        """User name and password of the UI."""
        passwords = json.loads(
            (self.home / "simple_auth_manager_passwords.json.generated").read_text()
        )
        return "admin", passwords["admin"]

    def trigger(self, dag_id: str, **params: str) -> str:
        """Unpause a DAG, start a run of it and return the run's id."""
        self._wait(f"DAG {dag_id}", lambda: self._unpause(dag_id))
        body = {"logical_date": None, "conf": params}
        return str(self._call("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def runs(self, dag_id: str = "~") -> list[dict[str, Any]]:
        """All runs of a DAG (of every DAG, without one), oldest first."""
        path = f"/api/v2/dags/{dag_id}/dagRuns?order_by=run_after&limit=100"
        return list(self._call("GET", path)["dag_runs"])

    def stop(self) -> None:
        """End every process that was started here."""
        if self._process is None:
            return
        for kind, patience_s in ((signal.SIGINT, 15), (signal.SIGKILL, 5)):
            try:
                os.killpg(self._process.pid, kind)
                self._process.wait(patience_s)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        self._process = None

    def _unpause(self, dag_id: str) -> bool:
        path = f"/api/v2/dags/{dag_id}"
        return self._http.patch(path, json={"is_paused": False}).status_code == httpx.codes.OK

    def _login(self) -> bool:
        try:
            user, password = self.login()
            body = {"username": user, "password": password}
            answer = self._http.post("/auth/token", json=body)
        except (OSError, ValueError, KeyError, httpx.TransportError):
            return False
        if answer.status_code != httpx.codes.CREATED:
            return False
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return True

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self._http.request(method, path, json=body)
        if answer.is_error:
            raise StepFailed(f"Airflow answered {answer.status_code} to {path}: {answer.text}")
        return dict(answer.json())

    def _wait(self, what: str, ready: Callable[[], bool]) -> None:
        stop = time.monotonic() + _START_TIMEOUT_S
        while not ready():
            if self._process is not None and self._process.poll() is not None:
                raise StepFailed(f"Airflow ended while starting: see {self.home}/standalone.log")
            if time.monotonic() > stop:
                raise StepFailed(f"{what} did not come up: see {self.home}/standalone.log")
            time.sleep(0.5)


def _port_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
