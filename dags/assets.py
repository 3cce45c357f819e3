"""The assets that DAGs hand to one another, and those that show lineage in the UI."""

from airflow.sdk import Asset

from pipeline.marts import mart_names

FEATURES = Asset(name="features", uri="nearline://features")
"""Hours of features that are online; its events carry `start` and `end`."""

RELEASE = Asset(name="release", uri="nearline://release")
"""The active release; its events carry `version`."""

OVERTAKEN = Asset(name="overtaken", uri="nearline://overtaken")
"""Hours that the live line lacks since a night went live; its events carry `start` and `end`."""

NIGHT_WANTED = Asset(name="night_wanted", uri="nearline://night_wanted")
"""The active line is far from its night, or old; its events carry `start` and `end` of a day."""

MARTS = {name: Asset(name=name, uri=f"nearline://marts/{name}") for name in mart_names()}
"""The dbt marts, by name: one dbt run builds all of them."""
