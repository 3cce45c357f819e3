"""What the demo does, from the first event to the last line of its report.

The night learns the history; the hour learns two hours of held-back traffic, each through the
scheduler; then one user gives feedback, which the next answer shows at once (live) and the next
release has learned (nearline).
"""

import os
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from nearline.console import err
from nearline.errors import ConfigError, NotReady
from nearline.settings import settings
from nearline.sources.landing import load_with_traffic
from nearline.sources.movielens import fetch_movielens_100k, read_movielens
from nearline.windows import HOUR, Window, hour_floor
from pipeline import services
from pipeline.airflow import Airflow
from pipeline.demo.home import choose_ports, claim_home, set_up
from pipeline.demo.lookups import Audience
from pipeline.demo.plot import plot_report
from pipeline.demo.report import Report
from pipeline.demo.traffic import deliver
from pipeline.doctor import examine
from serving.client import RecommendationClient
from serving.errors import ServiceError

PLAYED_HOURS = 2
HOLD_BACK = 0.02
SPEED = 24
"""A day of the held-back traffic plays in an hour: MovieLens-100K sleeps through most hours."""

_COMMAND = str(Path(sys.executable).with_name("nearline"))
_PATIENCE_S = 60
_SWAP_PATIENCE_S = 40


def run_demo(*, stay: bool) -> Report:
    """Play the demo and report; with `stay`, leave all running and traffic coming in.

    The report lies in `report.json` and `report.png` under NEARLINE_HOME when this returns.
    Raises ConfigError where this machine lacks something, StepFailed where a step fails; then
    everything is stopped, and what the services printed stays in `logs/`.
    """
    _require_prerequisites()
    home = claim_home()
    choose_ports()
    set_up(schedule_start=hour_floor(datetime.now(UTC)).isoformat())
    demo = Demo()
    try:
        demo.play()
        if stay:
            demo.stay()
        demo.finish(home)
    except BaseException:
        stay = False
        raise
    finally:
        if not stay:
            services.stop_all()
    return demo.report


def _require_prerequisites() -> None:
    lacking = [f"{finding.check}: {finding.detail}" for finding in examine() if not finding.ok]
    if lacking:
        raise ConfigError("this machine lacks\n  " + "\n  ".join(lacking))


@dataclass
class Demo:
    """One run of the demo: what it found so far, its scheduler, its client."""

    report: Report = field(default_factory=Report)
    airflow: Airflow = field(default_factory=Airflow)
    client: RecommendationClient = field(default_factory=RecommendationClient)

    def play(self) -> None:
        """Go round the ring: a night, some hours, a user's feedback."""
        first_hour = hour_floor(datetime.now(UTC)) - PLAYED_HOURS * HOUR
        with self.report.step("start Airflow, load MovieLens-100K"):
            self.airflow.start()
            history = self._load(first_hour)
            self.airflow.wait_until_up()
        self._run("history becomes features", "features_hourly", history)
        services.start("api", [_COMMAND, "serve"], env=os.environ)
        self._run("the night is learned", "train_nightly", Window.trailing(first_hour, hours=24))
        with self.report.step("the API takes the release over"):
            self._await_api()
        self.airflow.unpause("nearline_hourly")
        played = Window(first_hour, first_hour + PLAYED_HOURS * HOUR)
        for hour in played.hours():
            deliver(Window.of_hour(hour))
            self._turn(f"{hour:%H}:00", Window.of_hour(hour))
        self._react(played)

    def stay(self) -> None:
        """Let the held-back traffic trickle in and every DAG keep its schedule.

        Everything was started in the background, and `nearline down` ends it.
        """
        for dag_id in ("train_nightly", "housekeeping_daily"):
            self.airflow.unpause(dag_id)
        services.start("traffic", [_COMMAND, "traffic"], env=os.environ)
        user, password = self.airflow.login()
        self.report.addresses = {
            "Airflow": f"{self.airflow.url} (user {user}, password {password})",
            "API": f"http://{settings().serve_host}:{settings().serve_port}/openapi.json",
        }

    def finish(self, home: Path) -> None:
        """Gather what the ring did, and write the report."""
        self.report.count_lake()
        self.report.take_releases()
        self.report.take_runs(self.airflow.runs())
        self.report.write()
        plot_report(self.report, home / "report.png")

    def _load(self, end: datetime) -> Window:
        folder = fetch_movielens_100k(settings().home / "cache")
        loaded = load_with_traffic(read_movielens(folder), end, HOLD_BACK, SPEED)
        assert loaded.window is not None, "MovieLens-100K is not empty"
        return loaded.window

    def _run(self, name: str, dag_id: str, window: Window) -> None:
        start, end = window.start.isoformat(), window.end.isoformat()
        with self.report.step(name) as tell:
            run_id = self.airflow.trigger(dag_id, start=start, end=end)
            self.airflow.finish(dag_id, run_id, tell)

    def _turn(self, name: str, window: Window) -> None:
        """An hour through features and then, started by their asset, through the fine-tune."""
        seen = {run["dag_run_id"] for run in self.airflow.runs("nearline_hourly")}
        self._run(f"{name} becomes features", "features_hourly", window)
        with self.report.step(f"{name} is learned") as tell:
            run_id = self.airflow.triggered("nearline_hourly", seen)
            self.airflow.finish("nearline_hourly", run_id, tell)

    def _await_api(self) -> None:
        stop = time.monotonic() + _PATIENCE_S
        while not self._is_ready():
            if time.monotonic() > stop:
                raise NotReady(f"the API is not ready: see {services.log_path('api')}")
            time.sleep(0.2)

    def _is_ready(self) -> bool:
        try:
            return self.client.health().status == "ready"
        except ServiceError:
            return False

    def _react(self, played: Window) -> None:
        """Look up, give feedback, see it in the next answer and in the next release."""
        report = self.report
        audience = Audience.of(self.client, played)
        with report.step("look up"):
            report.lookups |= audience.look_around()
            report.latency_ms = audience.latency_ms()
        with report.step("give feedback, look up again"):
            posted = time.monotonic()
            feedback = audience.give_feedback()
            report.lookups["known_after_feedback"] = audience.look_up()
            report.freshness_seconds["live"] = round(time.monotonic() - posted, 3)
        # The running hour, closed early; two where the clock struck since the last one played.
        arrived = Window(played.end, hour_floor(datetime.now(UTC)) + HOUR)
        self._turn("the feedback", arrived)
        with report.step("serve the new release"):
            learned = self._await_release(arrived.end)
            report.freshness_seconds["hourly"] = round(time.monotonic() - posted, 1)
            report.lookups["known_after_nearline"] = audience.look_up()
        report.freshness_seconds["nightly"] = (datetime.now(UTC) - played.start).total_seconds()
        report.compare(feedback, new_release=learned)

    def _await_release(self, until: datetime) -> bool:
        """Whether serving has swapped to a release that has learned all hours `until` then."""
        stop = time.monotonic() + _SWAP_PATIENCE_S
        while self.client.release().window_end < until:
            if time.monotonic() > stop:
                err.print("[yellow]no newer release went live: see the gate's reasons[/]")
                return False
            time.sleep(0.1)
        return True
