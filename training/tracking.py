"""What MLflow is told of a training: its parameters, what was watched after each pass, the outcome.

Without a server this goes to a database file under NEARLINE_HOME, which `mlflow ui` shows. No
training fails for it: where MLflow takes no more, the log says so, and the training goes on.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from nearline.locks import alone
from nearline.releases import ReleaseManifest
from nearline.settings import settings
from training.dataset import Interactions
from training.model import Model
from training.together import leads
from training.watching import Watch

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

Experiment = Literal["nightly", "hourly", "evaluate"]

NOTHING: Final[Mapping[str, Any]] = {}

# MLflow would report its use to its makers, wait minutes for a server that is away, and tell of
# each table that it makes.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")


@contextmanager
def tracked(experiment: Experiment, name: str, **parameters: object) -> Iterator["Run"]:
    """A training that MLflow follows where the settings ask for it; one that raises has failed."""
    run = _begun(experiment, name) if _asked_for(experiment) and leads() else Run()
    run.note(parameters=parameters)
    try:
        yield run
    except BaseException:
        run.end("FAILED")
        raise
    run.end("FINISHED")


@dataclass
class Run:
    """One training as MLflow knows it; without a client, one that nobody follows."""

    client: "MlflowClient | None" = None
    run_id: str = ""
    _passes: int = field(default=0, init=False)

    def watched(self, watch: Watch | None) -> Watch | None:
        """The same watch; its figures are taken note of as they are found."""
        if watch is None:
            return None

        def figure(model: Model, data: Interactions) -> float:
            found = watch.figure(model, data)
            self._passes += 1
            self.note(figures={f"watched/{watch.name}": found}, step=self._passes)
            return found

        return replace(watch, figure=figure)

    def released(self, manifest: ReleaseManifest) -> None:
        """Take note of the release that came of it: its verdict, its figures, the baselines'."""
        rivals = {
            f"{rival}/{name}": value
            for rival, found in manifest.baselines.items()
            for name, value in found.items()
        }
        tags = {
            "release": manifest.version,
            "parent": manifest.parent,
            "promoted": manifest.promoted,
            "reasons": "; ".join(manifest.reasons),
        }
        self.note(figures={**manifest.metrics, **rivals}, tags=tags)

    def note(
        self,
        *,
        parameters: Mapping[str, object] = NOTHING,
        figures: Mapping[str, float] = NOTHING,
        tags: Mapping[str, object] = NOTHING,
        step: int = 0,
    ) -> None:
        """Take note of parameters, of figures found at a step, and of words."""

        def log_all(client: "MlflowClient") -> None:
            from mlflow.entities import Metric, Param, RunTag

            now_ms = int(time.time() * 1000)
            client.log_batch(
                self.run_id,
                metrics=[Metric(_allowed(n), float(x), now_ms, step) for n, x in figures.items()],
                params=[Param(name, str(value)) for name, value in parameters.items()],
                tags=[RunTag(name, str(value)) for name, value in tags.items()],
            )

        self._tell(log_all)

    def end(self, status: Literal["FINISHED", "FAILED"]) -> None:
        """The training is over."""
        self._tell(lambda client: client.set_terminated(self.run_id, status))

    def _tell(self, tell: Callable[["MlflowClient"], None]) -> None:
        if self.client is None:
            return
        try:
            tell(self.client)
        except Exception as error:  # of a database, of the network, of MLflow
            log.warning("MLflow is told no more of this training: %s", error)
            self.client = None


def _asked_for(experiment: Experiment) -> bool:
    track = settings().track
    return track == "all" or (track == "long" and experiment != "hourly")


def _begun(experiment: Experiment, name: str) -> Run:
    config = settings()
    try:
        from mlflow.tracking import MlflowClient

        with alone("tracking"):  # two that make the tables at once leave half of them
            client = MlflowClient(config.mlflow_uri)
        known = client.get_experiment_by_name(experiment)
        number = known.experiment_id if known else client.create_experiment(experiment)
        return Run(client, client.create_run(number, run_name=name).info.run_id)
    except Exception as error:  # of a database, of the network, of MLflow
        log.warning("MLflow at %s follows no training: %s", config.mlflow_uri, error)
        return Run()


def _allowed(name: str) -> str:
    """The name of a figure, in letters that MLflow takes."""
    return name.replace("@", "_at_")
