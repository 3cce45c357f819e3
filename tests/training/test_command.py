import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nearline.cli import build
from nearline.errors import NotReady, ReleaseRefused, UnknownRelease
from nearline.releases import ReleaseManifest, ReleaseStore

END = datetime(2026, 1, 8, tzinfo=UTC)
HOURS = ["--start", "2026-01-08T12:00Z", "--end", "2026-01-08T20:00Z"]


def run(*words: str) -> str:
    done = CliRunner(env={"COLUMNS": "300"}).invoke(build(), list(words))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def publish(content: str, *, promoted: bool = True) -> str:
    manifest = ReleaseManifest(
        kind="nightly",
        parent=None,
        base=None,
        window_start=END.replace(day=1),
        window_end=END,
        promoted=promoted,
        reasons=["worse than the best baseline, popular"],
        metrics={"ndcg@10": 0.1},
    )
    store = ReleaseStore.open()
    with store.stage() as folder:
        (folder / "weights").write_text(content)
        return store.publish(folder, manifest)


def test_the_command_is_light() -> None:
    code = "import sys, training.command; print({'torch', 'onnxruntime'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_releases_are_listed_shown_and_rolled_back(home: Path) -> None:
    first, second = sorted([publish("1"), publish("2")])
    store = ReleaseStore.open()
    store.promote(first)
    store.promote(second)
    listed = json.loads(run("releases", "list", "--json"))
    assert [(row["version"], row["active"]) for row in listed] == [(first, False), (second, True)]
    assert first in run("releases")
    assert "worse than the best baseline" in run("releases", "show", first)
    assert json.loads(run("releases", "rollback", "--json")) == {"active": first}
    assert store.active() == first
    with pytest.raises(ReleaseRefused, match="no earlier release"):
        run("releases", "rollback")
    with pytest.raises(UnknownRelease, match="no release 'nothing'"):
        run("releases", "show", "nothing")


def test_no_releases_are_an_empty_table(home: Path) -> None:
    assert "version" in run("releases")


def test_a_fine_tune_needs_a_parent(home: Path) -> None:
    with pytest.raises(NotReady, match="nearline train --promote"):
        run("finetune", *HOURS)


def test_a_refused_release_is_not_promoted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "training.nightly.train_nightly", lambda window: publish("bad", promoted=False)
    )
    with pytest.raises(ReleaseRefused, match=r"gate refused .*: worse than the best baseline"):
        run("train", *HOURS, "--promote")
    assert ReleaseStore.open().active() is None


def test_published_is_not_active_unless_asked_for(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.nightly.train_nightly", lambda window: publish("good"))
    assert "published, not active" in run("train", *HOURS)
    assert ReleaseStore.open().active() is None
    told = json.loads(run("train", *HOURS, "--promote", "--json"))
    assert told["active"] is True
    assert told["version"] == ReleaseStore.open().active()


def test_a_real_fine_tune_through_the_command(trained: str) -> None:
    told = json.loads(run("finetune", *HOURS, "--parent", trained, "--json"))
    assert (told["parent"], told["active"], told["kind"]) == (trained, False, "hourly")
