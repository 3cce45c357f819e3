"""Feast's store of this folder, by the settings."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from feast import FeatureStore, FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import load_repo_config
from feast.type_map import feast_value_type_to_python_type

from feature_repo.online_store import Asked, NeverBack, Row
from feature_repo.registry_store import registered_project
from nearline.errors import ConfigError
from nearline.settings import settings


class Store(FeatureStore):
    """Feast's store, with a read that does little else than read."""

    def read(
        self, features: Sequence[str], keys: Sequence[Mapping[str, str]]
    ) -> dict[str, list[Any]]:
        """Columns `view__name` of values, one for each key, and `view__name__ts` of their times.

        `features` are named `view:name`, of any views of one entity; a time is in seconds, 0 where
        there is no row. These are the columns that `get_online_features` gives, which looks up
        views and types each time, and builds a response to take it apart again. Raises what Feast
        raises for unknown views and unreachable stores.
        """
        names: dict[str, list[str]] = {}
        for feature in features:
            view, name = feature.split(":")
            names.setdefault(view, []).append(name)
        asked = [Asked(self._view(view), found) for view, found in names.items()]
        read = self.online.read_views(self.config, asked, [self._entity_key(key) for key in keys])
        columns: dict[str, list[Any]] = {}
        for (view, found), rows in zip(names.items(), read, strict=True):
            times = [int(ts.timestamp()) if ts else 0 for ts, _ in rows]
            for name in found:
                columns[f"{view}__{name}"] = [_value(row, name) for row in rows]
                columns[f"{view}__{name}__ts"] = times
        return columns

    @property
    def online(self) -> NeverBack:
        """The online store that the settings name."""
        found = self.provider.online_store
        assert isinstance(found, NeverBack)
        return found

    @cached_property
    def _views(self) -> dict[str, FeatureView]:
        return {}

    def _view(self, name: str) -> FeatureView:
        """A view as it was registered at first: only its name says where its rows are."""
        if name not in self._views:
            self._views[name] = self.get_feature_view(name)
        return self._views[name]

    def _entity_key(self, key: Mapping[str, str]) -> bytes:
        values = [Value(string_val=value) for value in key.values()]
        version = self.config.entity_key_serialization_version
        return serialize_entity_key(EntityKey(join_keys=list(key), entity_values=values), version)


def _value(row: Row, name: str) -> Any:
    _, values = row
    found = values.get(name) if values else None
    return None if found is None else feast_value_type_to_python_type(found)


def open_store() -> Store:
    """The store that feature_store.yaml describes, with the project of the settings.

    It reads the registry at its first use. Raises ConfigError where that was begun with another
    project: what is online by that name would be found by nobody, not to forget a user either.
    """
    folder, project = Path(__file__).parent, settings().feast_project
    began_with = registered_project()
    if began_with not in (None, project):
        raise ConfigError(
            f"NEARLINE_FEAST_PROJECT={project!r}, but the features of {settings().feast_registry} "
            f"are online as {began_with!r}: set that, or see docs/how-to/operate.md for a change"
        )
    config = load_repo_config(folder, folder / "feature_store.yaml")
    return Store(str(folder), config.model_copy(update={"project": project}))
