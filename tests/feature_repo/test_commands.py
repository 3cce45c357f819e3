"""Feast's own command in feature_repo/, as one runs it by hand, where clocks do not show UTC.

The commands share one process: each would take its ten seconds to import Feast.
"""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from feast import FeatureStore

from nearline.lake import Lake
from nearline.windows import HOUR
from spark_jobs.sequences import SEQUENCE_SCHEMA, USER_SEQUENCE

REPO = Path(__file__).parents[2] / "feature_repo"
T0 = datetime(2026, 3, 1, 10, tzinfo=UTC)
FEAST = """
import json, sys
from feast.cli.cli import cli
for command in json.loads(sys.argv[1]):
    cli(command, standalone_mode=False)
"""


def feast(*commands: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", FEAST, json.dumps(commands)],
        cwd=REPO,
        env=os.environ | {"TZ": "America/New_York"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write(hour: datetime, user_id: str, *items: str) -> None:
    row = {
        "user_id": user_id,
        "feature_ts": hour + HOUR,
        "item_ids": list(items),
        "event_types": ["play"] * len(items),
        "event_ts": [1] * len(items),
        "values": [0.5] * len(items),
    }
    Lake.open().write_hour(USER_SEQUENCE, hour, pa.Table.from_pylist([row], schema=SEQUENCE_SCHEMA))


def online_items(*user_ids: str) -> list[list[str] | None]:
    answer = FeatureStore(repo_path=str(REPO)).get_online_features(
        features=["user_sequence:item_ids"], entity_rows=[{"user_id": u} for u in user_ids]
    )
    return answer.to_dict()["item_ids"]


@pytest.mark.slow
def test_apply_list_and_materialize_by_hand(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path for path in REPO.iterdir() if path.name != "__pycache__"}
    write(T0, "early", "a")
    write(T0 + 2 * HOUR, "later", "a", "b")
    write(T0 + 3 * HOUR, "last", "c")
    told = feast(
        ["apply"],
        ["feature-views", "list"],
        ["materialize", "2026-03-01T10:30:00", "2026-03-01T11:30:00"],
        ["materialize-incremental", "2026-03-01T13:00:00"],
    )
    assert "Deploying infrastructure for user_sequence" in told
    assert "item_neighbours" in told
    # `early` lies before where the incremental run begins, `last` after where it ends.
    assert online_items("early", "later", "last") == [["a"], ["a", "b"], None]
    assert {path for path in REPO.iterdir() if path.name != "__pycache__"} == before
