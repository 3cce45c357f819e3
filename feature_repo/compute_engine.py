"""How Feast materializes: the newest rows of a window, batch by batch, into the online store."""

from typing import Any, Literal

from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.base import ComputeEngine
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel

from feature_repo.newest_rows import NewestRows
from feature_repo.online_store import NeverBack


class LakeComputeEngineConfig(FeastConfigBaseModel):
    """No settings of its own."""

    type: Literal["feature_repo.compute_engine.LakeComputeEngine"] = (
        "feature_repo.compute_engine.LakeComputeEngine"
    )


class LakeComputeEngine(ComputeEngine):
    """Brings a window online in bounded memory; a run that was killed goes on where it stopped."""

    def update(self, *_: Any) -> None:
        """Nothing to prepare."""

    def teardown_infra(self, *_: Any) -> None:
        """Nothing to take away."""

    def _materialize_one(
        self, registry: BaseRegistry, task: MaterializationTask, **_: Any
    ) -> LocalMaterializationJob:
        view = task.feature_view
        name = f"{view.name}-{task.start_time}-{task.end_time}"
        rows = NewestRows(view, task.start_time, task.end_time)
        assert isinstance(self.online_store, NeverBack)
        try:
            self.online_store.materialize(self.repo_config, view, rows)
        except Exception as error:  # Feast raises it again, once it has put its registry right
            return LocalMaterializationJob(name, MaterializationJobStatus.ERROR, error)
        return LocalMaterializationJob(name, MaterializationJobStatus.SUCCEEDED)
