"""Two homes beside each other: what one has, the other knows nothing of (decision 14)."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from nearline.settings import settings
from serving.keys import KeyFile, Role
from tests.serving.conftest import NOW, World

TENANTS = ("north", "south")


@pytest.fixture
def tenants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """For each tenant a client that holds the tenant's own key; all run in one process."""
    with ExitStack() as stack:
        found = {}
        for name in TENANTS:
            monkeypatch.setenv("NEARLINE_HOME", str(tmp_path / name))
            settings.cache_clear()
            world = World()
            items = [f"{name}-{n}" for n in range(4)]
            world.catalogue(*({"item_id": item_id} for item_id in items))
            world.promote(items)
            _, key = KeyFile.open().add(name=name, role=Role.WRITE, rate=None, now=NOW)
            client = stack.enter_context(world.client())
            client.headers["authorization"] = f"Bearer {key}"
            event = world.event("e1", items[0], user_id="ann")
            assert client.post("/v1/events", json=event).json()["accepted"] == 1
            found[name] = client
        yield found
        settings.cache_clear()


def test_a_key_opens_its_own_home_only(tenants: dict[str, Any]) -> None:
    north, south = (tenants[name] for name in TENANTS)
    assert north.get("/v1/release").status_code == 200
    south.headers["authorization"] = north.headers["authorization"]
    assert south.get("/v1/release").status_code == 401


def test_items_events_and_releases_stay_at_home(tenants: dict[str, Any], tmp_path: Path) -> None:
    for name, other in (TENANTS, TENANTS[::-1]):
        told = "".join(
            tenants[name].get(path).text
            for path in ("/v1/users/ann", "/v1/trending", "/v1/releases", "/v1/search?q=south")
        )
        assert name in told
        assert f"{other}-" not in told
        files = [path for path in (tmp_path / name).rglob("*") if path.is_file()]
        assert files
        assert not [path for path in files if f"{other}-".encode() in path.read_bytes()]
