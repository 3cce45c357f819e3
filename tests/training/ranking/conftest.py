"""Features of a few hours, as dbt would leave them, and Feast that knows of them."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest

from feature_repo.partitions import view_schema
from feature_repo.views import BATCH_VIEWS
from nearline.lake import Lake
from nearline.schema import FEATURE_TS
from nearline.windows import HOUR, Window
from pipeline.online import apply_features, feature_store

VIEWS = {view.name: view for view in BATCH_VIEWS}


@pytest.fixture
def known(lake: Lake) -> Iterator[Callable[..., None]]:
    """Write rows of a view that are known from an hour on; Feast's definitions are applied."""

    def write(view: str, at: datetime, *rows: dict[str, Any]) -> None:
        timed = [row | {FEATURE_TS: at} for row in rows]
        table = pa.Table.from_pylist(timed, schema=view_schema(VIEWS[view]))
        lake.write_hour(f"features/{view}", at - HOUR, table)
        lake.mark_complete(f"features/{view}", Window(at - HOUR, at), rows=len(rows))

    feature_store.cache_clear()
    apply_features()
    yield write
    feature_store.cache_clear()
