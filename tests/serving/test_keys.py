"""Keys at rest, and the commands that make and revoke them."""

import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nearline.errors import BadInput, ConfigError
from nearline.settings import settings
from serving.command import keys
from serving.keys import KeyFile, Role

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(keys, list(arguments), catch_exceptions=False)


def test_a_key_is_shown_once_and_kept_as_a_hash(home: Path) -> None:
    shown = run("add", "--role", "read", "--name", "shop").stdout.strip()
    kept = settings().keys.read_text()
    prefix, key_id, secret = shown.split("_", 2)
    assert prefix == "nl"
    assert len(secret) >= 43
    assert key_id in kept
    assert secret not in kept
    assert secret not in run("list", "--json").stdout
    assert stat.S_IMODE(settings().keys.stat().st_mode) == 0o600


def test_keys_are_listed_and_revoked(home: Path) -> None:
    for role, name in (("read", "shop"), ("admin", "ops")):
        run("add", "--role", role, "--name", name, "--rate", "5")
    listed = json.loads(run("list", "--json").stdout)
    assert [(key["name"], key["role"], key["rate"]) for key in listed] == [
        ("shop", "read", 5),
        ("ops", "admin", 5),
    ]
    run("revoke", listed[0]["id"])
    assert [key["name"] for key in json.loads(run("list", "--json").stdout)] == ["ops"]
    assert "ops" in run("list").stdout
    with pytest.raises(BadInput, match="nearline keys list"):
        run("revoke", listed[0]["id"])


@pytest.mark.parametrize(("name", "rate"), [("", 1.0), ("a\nb", 1.0), ("shop", 0.0)])
def test_a_key_that_cannot_be_is_refused(home: Path, name: str, rate: float) -> None:
    with pytest.raises(BadInput):
        KeyFile.open().add(name=name, role=Role.READ, rate=rate, now=NOW)
    assert KeyFile.open().read() == []


@pytest.mark.parametrize("content", ["", "{", '{"keys": [{"name": "shop"}]}', "[]"])
def test_a_file_that_is_no_file_of_keys_is_named(home: Path, content: str) -> None:
    settings().keys.write_text(content)
    with pytest.raises(ConfigError, match=r"keys\.json"):
        KeyFile.open().read()


def test_a_change_is_seen_by_the_version(home: Path, keyed: Callable[..., str]) -> None:
    file = KeyFile.open()
    versions = [file.version()]
    keyed("read")
    versions.append(file.version())
    file.revoke(file.read()[0].key_id)
    versions.append(file.version())
    assert versions[0] is None
    assert len(set(versions)) == 3
