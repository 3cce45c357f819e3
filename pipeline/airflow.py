"""A private Airflow: scheduler, API server and UI on loopback, all data under NEARLINE_HOME."""

import json
import os
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import httpx

from nearline.errors import StepFailed
from nearline.settings import settings
from pipeline import services

POOLS = {
    "lake": "Spark and dbt write the lake and the marts: one at a time.",
    "online": "The online store has one writer at a time.",
    "model": "Nights are trained one at a time; hours are tuned beside them.",
}
FINISHED = ("success", "failed")

_REPOSITORY = Path(__file__).resolve().parents[1]
_START_TIMEOUT_S = 180
_POLL_S = 0.5


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
    """Starts `airflow standalone` as a service, and runs DAGs through its API."""

    def __init__(self) -> None:
        self.home = settings().home / "airflow"
        self.url = _url()
        self._service: services.Service | None = None
        self._http = httpx.Client(base_url=self.url, timeout=30)

    def start(self) -> None:
        """Start everything; it is up when `wait_until_up` returns."""
        self.home.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "airflow", "standalone"]
        self._service = services.start("airflow", command, env=environment())

    def wait_until_up(self) -> None:
        """Wait until the API answers, and make the pools.

        Raises StepFailed when nothing answers in three minutes.
        """
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

    def unpause(self, dag_id: str) -> None:
        """Let a DAG run, as soon as it was read."""
        self._wait(f"DAG {dag_id}", lambda: self._unpause(dag_id))

    def trigger(self, dag_id: str, **params: str) -> str:
        """Start a run of a DAG and return the run's id."""
        self.unpause(dag_id)
        body = {"logical_date": None, "conf": params}
        return str(self._call("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def runs(self, dag_id: str = "~") -> list[dict[str, Any]]:
        """All runs of a DAG (of every DAG, without one), oldest first."""
        path = f"/api/v2/dags/{dag_id}/dagRuns?order_by=run_after&limit=100"
        return list(self._call("GET", path)["dag_runs"])

    def triggered(self, dag_id: str, seen: Collection[str]) -> str:
        """Wait for a run that is not among `seen`, as an asset starts it; returns its id.

        Raises StepFailed when none comes in three minutes.
        """
        new: list[str] = []

        def came() -> bool:
            new.extend(run["dag_run_id"] for run in self.runs(dag_id))
            return not set(new) <= set(seen)

        self._wait(f"a run of {dag_id}", came)
        return next(run_id for run_id in new if run_id not in seen)

    def finish(self, dag_id: str, run_id: str, tell: Callable[[str], None]) -> dict[str, Any]:
        """Wait for a run to end and return it; `tell` hears which tasks are running.

        Raises StepFailed that names the failed tasks when it does not succeed.
        """
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"
        while (run := self._call("GET", path))["state"] not in FINISHED:
            running = [t["task_id"] for t in self.tasks(dag_id, run_id) if t["state"] == "running"]
            tell(", ".join(running) or "scheduling")
            time.sleep(_POLL_S)
        if run["state"] != "success":
            tasks = self.tasks(dag_id, run_id)
            failed = ", ".join(t["task_id"] for t in tasks if t["state"] == "failed")
            raise StepFailed(
                f"{dag_id} failed in {failed}: see {self.home}/logs/dag_id={dag_id}/run_id={run_id}"
            )
        return run

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The task instances of a run, as the API tells them."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        return list(self._call("GET", path)["task_instances"])

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
        log, stop = services.log_path("airflow"), time.monotonic() + _START_TIMEOUT_S
        while not ready():
            if self._service is not None and not services.running(self._service):
                raise StepFailed(f"Airflow ended while starting: see {log}")
            if time.monotonic() > stop:
                raise StepFailed(f"{what} did not come up: see {log}")
            time.sleep(_POLL_S)
