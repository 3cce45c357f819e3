"""The assets that DAGs hand to one another."""

from airflow.sdk import Asset

FEATURES = Asset(name="features", uri="nearline://features")
"""Hours of features that are online; its events carry `start` and `end`."""
