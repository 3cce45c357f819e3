"""Feast's registry as one file, where the settings say, of a size that does not grow with time."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from feast.infra.registry.file import FileRegistryStore
from feast.protos.feast.core.FeatureView_pb2 import MaterializationInterval
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from feast.repo_config import RegistryConfig
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from google.protobuf.timestamp_pb2 import Timestamp

from nearline.settings import settings

_KEPT_INTERVALS = 100
_NEIGHBOURS = timedelta(seconds=1)
"""Intervals this close are one: a row's time is a whole hour, so that none lies between them."""


class SettingsRegistryStore(FileRegistryStore):
    """The registry file that the settings name. Readers see the old one or the new one."""

    def __init__(self, registry_config: RegistryConfig, repo_path: Path) -> None:
        path = settings().feast_registry
        super().__init__(registry_config.model_copy(update={"path": str(path)}), repo_path)

    def _write_registry(self, registry_proto: RegistryProto) -> None:
        for view in registry_proto.feature_views:
            merge_intervals(view.meta.materialization_intervals)
        target = self._filepath
        target.parent.mkdir(parents=True, exist_ok=True)
        self._filepath = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        try:
            super()._write_registry(registry_proto)
            self._filepath.replace(target)
        finally:
            self._filepath = target


def registered_project() -> str | None:
    """The project of the registry that the settings name; None before anything is registered."""
    path = settings().feast_registry
    if not path.is_file():
        return None
    projects = RegistryProto.FromString(path.read_bytes()).projects
    return projects[0].spec.name if projects else None


def merge_intervals(intervals: "RepeatedCompositeFieldContainer[MaterializationInterval]") -> None:
    """Join neighbouring intervals, in place; of those that stay apart the newest are kept.

    Feast adds one for each run and asks only where the newest ends.
    """
    merged: list[list[datetime]] = []
    for start, end in sorted((_utc(i.start_time), _utc(i.end_time)) for i in intervals):
        if merged and start <= merged[-1][1] + _NEIGHBOURS:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    del intervals[:]
    for start, end in merged[-_KEPT_INTERVALS:]:
        intervals.add(start_time=start, end_time=end)


def _utc(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(UTC)
