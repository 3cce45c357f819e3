"""Feast's registry as one file, where the settings say."""

import os
from pathlib import Path

from feast.infra.registry.file import FileRegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from feast.repo_config import RegistryConfig

from nearline.settings import settings


class SettingsRegistryStore(FileRegistryStore):
    """The registry file that the settings name. Readers see the old one or the new one."""

    def __init__(self, registry_config: RegistryConfig, repo_path: Path) -> None:
        path = settings().feast_registry
        super().__init__(registry_config.model_copy(update={"path": str(path)}), repo_path)

    def _write_registry(self, registry_proto: RegistryProto) -> None:
        target = self._filepath
        target.parent.mkdir(parents=True, exist_ok=True)
        self._filepath = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        try:
            super()._write_registry(registry_proto)
            self._filepath.replace(target)
        finally:
            self._filepath = target
