"""Installations that share a Redis by projects of their own: what one has, the other never sees."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from feast.repo_config import load_repo_config

from feature_repo import store as feature_repo_store
from nearline.errors import ConfigError, NearlineError
from nearline.lake import Lake
from nearline.pushed import pushed, tell_pushed
from nearline.settings import settings
from pipeline.online import feature_store, forget_users, materialize, stored_of
from tests.pipeline.test_online import close, flush_or_skip, hour, read, sequence, write

REDIS = "redis://127.0.0.1:6379/14"
TENANTS = ("north", "south")
Enter = Callable[[str], None]


@pytest.fixture
def enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Enter]:
    """Makes this process one of a tenant, whose home and project bear its name."""
    database = redis.Redis.from_url(REDIS)
    flush_or_skip(database)
    monkeypatch.setenv("NEARLINE_ONLINE_STORE", "redis")
    monkeypatch.setenv("NEARLINE_REDIS_URL", REDIS)

    def become(tenant: str) -> None:
        monkeypatch.setenv("NEARLINE_HOME", str(tmp_path / tenant))
        monkeypatch.setenv("NEARLINE_FEAST_PROJECT", tenant)
        forget_what_was_read()

    yield become
    database.flushdb()
    forget_what_was_read()


def forget_what_was_read() -> None:
    settings.cache_clear()
    feature_store.cache_clear()


def bring_online(item_id: str) -> None:
    """Bring an hour online in which ann touched an item."""
    lake = Lake.open()
    write(lake, "user_sequence", hour(0).start, [sequence("ann", item_id)])
    close(lake, hour(0))
    materialize(hour(0))


def test_tenants_on_one_redis_keep_their_rows_apart(enter: Enter) -> None:
    for tenant in TENANTS:
        enter(tenant)
        bring_online(f"item of {tenant}")
        tell_pushed(f"release of {tenant}")
    for tenant in TENANTS:
        enter(tenant)
        assert read("user_sequence", "item_ids", "user", "ann") == [[f"item of {tenant}"]]
        assert pushed() == f"release of {tenant}"
    forget_users(["ann"])
    tell_pushed(None)
    assert stored_of(["ann"]) == {"ann": []}
    enter(TENANTS[0])
    assert stored_of(["ann"]) == {"ann": ["user_sequence"]}
    assert pushed() == f"release of {TENANTS[0]}"


@pytest.fixture
def begun(home: Path) -> Iterator[None]:
    """A home whose first hour is online, in SQLite, by the project of the defaults."""
    feature_store.cache_clear()
    bring_online("i1")
    yield
    forget_what_was_read()


def test_a_home_keeps_the_project_that_it_began_with(
    begun: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_FEAST_PROJECT", "shop")
    forget_what_was_read()
    for act in (lambda: materialize(hour(0)), lambda: forget_users(["ann"])):
        with pytest.raises(NearlineError, match="are online as 'nearline'"):
            act()
    monkeypatch.delenv("NEARLINE_FEAST_PROJECT")
    forget_what_was_read()
    assert stored_of(["ann"]) == {"ann": ["user_sequence"]}


def test_feasts_own_command_touches_no_other_project(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_FEAST_PROJECT", "shop")
    forget_what_was_read()
    folder = Path(feature_repo_store.__file__).parent
    config = load_repo_config(folder, folder / "feature_store.yaml")
    online, nothing = feature_store().online, Any
    for act in (
        lambda: online.update(config, [], [], [], [], True),
        lambda: online.teardown(config, [], []),
        lambda: online.materialize(config, nothing, nothing),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError, match="with `project: shop`"):
            act()
    forget_what_was_read()


@pytest.mark.parametrize("name", ["", "_x", "Shop", "a-b", "a b", "1st", "a" * 41])
def test_a_project_is_a_plain_name(home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("NEARLINE_FEAST_PROJECT", name)
    settings.cache_clear()
    with pytest.raises(ConfigError, match="NEARLINE_FEAST_PROJECT"):
        settings()
