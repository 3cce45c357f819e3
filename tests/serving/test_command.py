import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from nearline.cli import build
from nearline.errors import BadInput, ConfigError
from nearline.intake.files import read_hour
from nearline.settings import settings
from nearline.windows import hour_floor
from serving.errors import ServiceNotReady, UnknownItem, Unreachable
from serving.options import list_options
from serving.schema import ListOptions, ListQuery

ITEMS = tuple(f"i{n}" for n in range(12))


@pytest.fixture
def base_url(world: Any, listening: Any) -> Iterator[str]:
    world.catalogue(*({"item_id": i, "title": f"[{i}] the film"} for i in ITEMS))
    world.promote(ITEMS)
    with listening(world.app()) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs `nearline ARGUMENTS`; errors come through as they are."""

    def invoke(*arguments: str) -> Any:
        return CliRunner().invoke(build(), list(arguments), catch_exceptions=False)

    return invoke


@pytest.mark.parametrize(
    ("arguments", "source"),
    [
        (("user", "ann"), "popular"),
        (("item", "i3"), "neighbours"),
        (("session", "i1", "i2"), "live"),
        (("trending",), "popular"),
        (("search", "the", "film", "--user", "ann"), "search"),
    ],
)
def test_lookup_prints_json_for_programs(
    base_url: str, run: Callable[..., Any], arguments: tuple[str, ...], source: str
) -> None:
    result = run("lookup", *arguments, "--url", base_url, "--limit", "3", "--json")
    answer = json.loads(result.stdout)
    assert (answer["source"], len(answer["items"])) == (source, 3)


def test_lookup_prints_tables_for_people(base_url: str, run: Callable[..., Any]) -> None:
    result = run("lookup", "session", "i1", "nowhere", "--url", base_url)
    assert "[i2] the film" in result.stdout
    assert "live · release" in result.stderr
    assert "ignored nowhere: unknown item" in result.stderr


def test_lookup_takes_every_option_of_a_list(base_url: str, run: Callable[..., Any]) -> None:
    flags = ["--category", "noir", "--category", "farce", "--price-max", "20"]
    flags += ["--price-min", "5", "--attribute", "color:red", "--attribute", "color:blue"]
    flags += ["--exclude", "i1", "--surface", "home", "--context", "page:detail", "--explain"]
    flags += ["--url", base_url, "--limit", "3"]
    for command in (("user", "ann"), ("item", "i3"), ("session", "i2"), ("trending",)):
        answer = json.loads(run("lookup", *command, *flags, "--json").stdout)
        assert not any(item["matches"] for item in answer["items"])
        assert "i1" not in [item["item_id"] for item in answer["items"]]
        assert answer["items"][0]["why"] is not None
        assert answer["filled"]["items"] == 3
        empty = run("lookup", *command, *flags, "--no-fill", "--json")
        assert json.loads(empty.stdout)["items"] == []
    told = run("lookup", "session", "i2", *flags)
    assert "play [i2] the film (" in " ".join(told.stdout.split())
    assert "the last 3 fill up: the filters left fewer items" in " ".join(told.stderr.split())
    assert told.stdout.count("against the filters") == 3
    bare = run("lookup", "session", "i2", *flags, "--no-fill")
    assert "nothing fills up: the filters left fewer items" in " ".join(bare.stderr.split())
    whole = run("lookup", "session", "i2", "--url", base_url, "--limit", "3")
    assert "fills up" not in whole.stdout
    with pytest.raises(BadInput, match="--attribute red: write it as NAME:VALUE"):
        run("lookup", "trending", "--attribute", "red")
    with pytest.raises(BadInput, match="--context red: write it as NAME:VALUE"):
        run("lookup", "trending", "--context", "red")


def test_the_command_the_client_and_the_api_have_the_same_options() -> None:
    several = {"category": "categories", "attribute": "attributes"}
    asked = set(ListQuery.model_fields)
    assert set(signature(list_options).parameters) == asked
    assert set(ListOptions.__annotations__) == {several.get(name, name) for name in asked}


def test_a_lookup_counts_as_shown_only_when_it_is_told_to(
    base_url: str, world: Any, run: Callable[..., Any]
) -> None:
    kinds = [("user", "ann"), ("item", "i3"), ("session", "i2"), ("trending",), ("search", "film")]
    for more, expected in (((), []), (("--log",), [kind for kind, *_ in kinds])):
        for command in kinds:
            run("lookup", *command, *more, "--url", base_url)
        rows = read_hour(settings().intake / "impressions", hour_floor(world.now))
        logged = [{"similar": "item"}.get(row["kind"], row["kind"]) for row in rows]
        assert logged == expected


def test_lookup_tells_what_went_wrong(
    base_url: str, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownItem, match="'nowhere'"):
        run("lookup", "item", "nowhere", "--url", base_url)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(Unreachable, match="nearline serve"):
        run("lookup", "trending", "--url", free)


def test_serve_refuses_what_it_cannot_do(home: Path, run: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="nearline keys add"):
        run("serve", "--host", "0.0.0.0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(ConfigError, match=f"port {port}.*in use"):
            run("serve", "--port", port)
    (home / "experiments.yaml").write_text("test: {arms: {}}")
    with pytest.raises(ConfigError, match="one must be called 'control'"):
        run("serve", "--port", "0")


@pytest.mark.parametrize(("host", "guarded"), [("0.0.0.0", True), ("127.0.0.1", False)])
def test_beyond_loopback_keys_are_needed_whatever_becomes_of_them(
    home: Path, run: Callable[..., Any], keyed: Any, monkeypatch: Any, host: str, guarded: bool
) -> None:
    keyed("read")
    told: dict[str, Any] = {}
    monkeypatch.setattr("serving.workers.run", lambda listener, **how: told.update(how))
    assert run("serve", "--host", host, "--port", "0").exit_code == 0
    assert told["guarded"] is guarded


def test_serve_starts_without_a_release_and_stops_when_told(
    world: Any, eventually: Any, run: Callable[..., Any], tmp_path: Path
) -> None:
    code = "from nearline.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "--port", "0"]
    log = tmp_path / "serve.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, stderr=out, env=os.environ | {"COLUMNS": "200"})
    try:
        eventually(lambda: "http://127.0.0.1:" in log.read_text() or process.poll() is not None)
        url = next(word for word in log.read_text().split() if word.startswith("http://"))

        def answers(status: int) -> bool:
            try:
                return httpx.get(f"{url}/readyz").status_code == status
            except httpx.ConnectError:
                return False

        eventually(lambda: answers(503))
        with pytest.raises(ServiceNotReady, match="nearline train"):
            run("lookup", "trending", "--url", url)
        world.promote(ITEMS)
        eventually(lambda: answers(200))
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)


def test_the_commands_load_nothing_heavy() -> None:
    heavy = ["fastapi", "onnxruntime", "feast", "torch", "pyspark", "uvicorn", "httpx"]
    code = f"import sys, serving.command; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
