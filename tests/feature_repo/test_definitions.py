"""Each object is defined once, described, and has the columns that its writer writes."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from feast.feature_view import FeatureView
from feast.repo_operations import parse_repo
from feast.type_map import feast_value_type_to_pa
from jinja2 import Template

from feature_repo.definitions import OBJECTS
from feature_repo.online_store import connection_string
from feature_repo.services import serving_v1
from feature_repo.views import BATCH_VIEWS, VIEWS
from nearline.schema import FEATURE_TS, TIMESTAMP
from pipeline.marts import FEATURES
from spark_jobs.cooccurrence import NEIGHBOUR_SCHEMA
from spark_jobs.sequences import SEQUENCE_SCHEMA

ROOT = Path(__file__).parents[2]
DBT_TYPES = {
    "string": pa.string(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "timestamp": TIMESTAMP,
    "string[]": pa.list_(pa.string()),
    "bigint[]": pa.list_(pa.int64()),
    "double[]": pa.list_(pa.float64()),
}


def columns(schema: pa.Schema) -> dict[str, pa.DataType]:
    return {name: schema.field(name).type for name in schema.names}


def dbt_columns() -> dict[str, dict[str, pa.DataType]]:
    """The columns of each dataset that a feature mart is written to."""
    text = (ROOT / "dbt_project/models/features/_features.yml").read_text()
    text = Template(text).render(target={"type": "duckdb"})
    return {
        FEATURES[model["name"]]: {c["name"]: DBT_TYPES[c["data_type"]] for c in model["columns"]}
        for model in yaml.safe_load(text)["models"]
    }


WRITTEN = {
    **dbt_columns(),
    "features/user_sequence": columns(SEQUENCE_SCHEMA),
    "features/item_neighbours": columns(NEIGHBOUR_SCHEMA),
}


@pytest.mark.parametrize("view", BATCH_VIEWS, ids=lambda view: view.name)
def test_a_view_reads_what_is_written(view: FeatureView) -> None:
    read = {
        field.name: feast_value_type_to_pa(field.dtype.to_value_type()) for field in view.schema
    }
    written = dict(WRITTEN[f"features/{view.name}"])
    assert written.pop(FEATURE_TS) == TIMESTAMP
    assert {name: _unit(dtype) for name, dtype in read.items()} == {
        name: _unit(dtype) for name, dtype in written.items()
    }


def _unit(dtype: pa.DataType) -> Any:
    """A type, whatever the precision and the zone of its times."""
    return "timestamp" if pa.types.is_timestamp(dtype) else dtype


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_every_view_and_field_is_described_and_expires(view: FeatureView) -> None:
    assert view.description
    assert view.ttl
    assert all(field.description for field in view.schema)


def test_the_feast_command_and_the_package_find_the_same_objects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repo = ROOT / "feature_repo"
    monkeypatch.chdir(repo)
    monkeypatch.syspath_prepend(str(repo))
    found = parse_repo(repo)
    parsed = [
        *found.data_sources,
        *found.entities,
        *found.feature_views,
        *found.stream_feature_views,
        *found.feature_services,
    ]
    names = [(type(each).__name__, each.name) for each in parsed]
    assert len(names) == len(set(names))
    assert set(names) >= {(type(each).__name__, each.name) for each in OBJECTS}
    views = {view.name: view for view in found.feature_views}
    assert all(views[view.name] is view for view in VIEWS)


def test_a_request_reads_sequence_and_vector_in_one_call() -> None:
    names = {projection.name for projection in serving_v1.feature_view_projections}
    assert {"user_sequence", "user_embedding"} <= names


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://localhost/3", "localhost:6379,db=3"),
        ("redis://10.0.0.1:7000", "10.0.0.1:7000"),
        (
            "rediss://ann:secret@cache:6380/1",
            "cache:6380,db=1,username=ann,password=secret,ssl=true",
        ),
    ],
)
def test_a_redis_url_as_feast_writes_it(url: str, text: str) -> None:
    limits = "socket_timeout=0.5,socket_connect_timeout=0.5"
    assert connection_string(url, timeout_s=0.5) == f"{text},{limits}"
