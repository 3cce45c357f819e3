"""Feast's store of this folder, by the settings."""

from pathlib import Path

from feast import FeatureStore


def open_store() -> FeatureStore:
    """The store that feature_store.yaml describes; it reads the registry at its first use."""
    return FeatureStore(repo_path=str(Path(__file__).parent))
