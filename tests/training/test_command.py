import itertools
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from nearline.cli import build
from nearline.errors import BadInput, ConfigError, NotReady, ReleaseRefused, UnknownRelease
from nearline.pushed import tell_pushed
from nearline.releases import ReleaseManifest, ReleaseStore
from nearline.settings import settings
from training import checkpoint, protocols
from training.command import evaluate
from training.dataset import Interactions
from training.evaluation import Evaluation, measure
from training.model import Model

END = datetime(2026, 1, 8, tzinfo=UTC)
HOURS = ["--start", "2026-01-08T12:00Z", "--end", "2026-01-08T20:00Z"]


class Killed(BaseException):
    """What the operating system does."""


def run(*words: str, columns: int = 300) -> str:
    done = CliRunner(env={"COLUMNS": str(columns)}).invoke(build(), list(words))
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
    assert json.loads(run("releases", "promote", second, "--json")) == {"active": second}
    listed = json.loads(run("releases", "list", "--json"))
    assert [(row["version"], row["active"]) for row in listed] == [(first, False), (second, True)]
    assert first in run("releases")
    assert first in run("releases", columns=80), "a version can be copied from any terminal"
    assert "worse than the best baseline" in run("releases", "show", first)
    assert json.loads(run("releases", "rollback", "--json")) == {"active": first}
    assert store.active() == first
    with pytest.raises(ReleaseRefused, match="was rolled back"):
        run("releases", "promote", second)
    with pytest.raises(ReleaseRefused, match="no earlier release"):
        run("releases", "rollback")
    with pytest.raises(UnknownRelease, match="no release 'nothing'"):
        run("releases", "show", "nothing")


def test_releases_are_shown_where_nobody_can_tell_which_is_active(home: Path) -> None:
    version = publish("1")
    ReleaseStore.open().promote(version)
    (ReleaseStore.open().root / "active.json").write_text("{")
    listed = json.loads(run("releases", "list", "--json"))
    assert [(row["version"], row["active"]) for row in listed] == [(version, False)]
    assert version in run("releases", "show", version)
    assert json.loads(run("releases", "rollback", version, "--json")) == {"active": version}


def test_who_moves_the_pointer_hears_that_vectors_are_to_follow(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sorted([publish("1"), publish("2")])
    assert "run `nearline push`" in run("releases", "promote", first)
    tell_pushed(first)
    assert "nearline push" not in run("releases", "promote", first)
    assert "run `nearline push`" in run("releases", "promote", second)
    assert "nearline push" not in run("releases", "rollback")
    settings().feast_online.write_text("no database")
    assert "run `nearline push`" in run("releases", "rollback", second)
    monkeypatch.setattr("training.nightly.train_nightly", lambda window: publish("3"))
    assert "run `nearline push`" in run("train", *HOURS, "--promote")


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


def test_a_fine_tune_goes_on_where_its_parent_ended(home: Path) -> None:
    parent = publish("night")
    with pytest.raises(BadInput, match=r"use --start 2026-01-08T00:00Z, or --force to leave them"):
        run("finetune", *HOURS, "--parent", parent)
    for start, end in (("07T22", "08T00"), ("05T00", "06T00")):
        hours = ["--start", f"2026-01-{start}:00Z", "--end", f"2026-01-{end}:00Z"]
        with pytest.raises(BadInput, match=r"learned all up to 2026-01-08T00:00Z.*--force"):
            run("finetune", *hours, "--parent", parent)


def test_a_real_fine_tune_through_the_command(trained: str) -> None:
    told = json.loads(run("finetune", *HOURS, "--parent", trained, "--force", "--json"))
    assert (told["parent"], told["active"], told["kind"]) == (trained, False, "hourly")
    assert (told["drift"]["hours"], told["drift"]["max_hours"]) == (20, 36)
    shown = run("releases", "show", told["version"])
    assert "of the night's lists changed (at most 25%), 20 h" in shown
    foreseen, kept, before = (
        f"{told['metrics'][f'{whose}_ndcg@10']:.4f}"
        for whose in ("parent", "retention", "retention_parent")
    )
    cells = [[cell.strip() for cell in line.split("│")] for line in shown.splitlines()]
    assert ["", "ndcg@10", foreseen, kept, ""] in cells
    assert ["", "parent_ndcg@10", "", before, ""] in cells
    (listed,) = [line for line in run("releases").splitlines() if told["version"] in line]
    *_, its_own, left, _ = [cell.strip() for cell in listed.split("│")]
    assert (its_own, left) == ("", f"{kept} of {before}")


def run_evaluate(*words: str | Path) -> str:
    app = typer.Typer()
    app.command()(evaluate)
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_file_of_sequences_is_judged(home: Path) -> None:
    sequences, attributes, figures = (home / n for n in ("s.txt", "a.json", "figures.json"))
    lines = [f"{n} " + " ".join(f"i{(n + step) % 9}" for step in range(5)) for n in range(20)]
    sequences.write_text("\n".join([*lines, "once i1"]))
    attributes.write_text(json.dumps({f"i{n}": [n % 3] for n in range(9)}))
    files = ["--sequences", sequences, "--attributes", attributes, "--json", figures]
    shown = run_evaluate(*files, "--protocol", "leave-one-out", "--seed", "3")
    told = json.loads(figures.read_text())
    assert {"ndcg@10", "recall@10", "epochs", "train_seconds"} <= set(told)
    assert (told["users"], told["items"], told["left_out"], told["seed"]) == (20, 9, 1, 3)
    assert told["protocol"] in shown
    assert str(told["ndcg@10"]) in shown


def test_a_killed_evaluation_goes_on_and_tells_the_same(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences, figures = home / "s.txt", home / "figures.json"
    lines = [f"{n} " + " ".join(f"i{(n + step) % 9}" for step in range(5)) for n in range(20)]
    sequences.write_text("\n".join(lines))
    asked = ("--sequences", sequences, "--json", figures, "--seed", "3")
    run_evaluate(*asked)
    whole = json.loads(figures.read_text())
    looks = itertools.count(1)

    def killed(model: Model, data: Interactions, targets: np.ndarray) -> Evaluation:
        if next(looks) == 2:
            raise Killed
        return measure(model, data, targets)

    with monkeypatch.context() as patch:
        patch.setattr(protocols, "measure", killed)
        patch.setattr(checkpoint, "SHARE", 1e9)
        with pytest.raises(Killed):
            run_evaluate(*asked)
    (kept,) = (home / "evaluate").iterdir()
    run_evaluate(*asked)
    again = json.loads(figures.read_text())
    assert again["stopped"] in ("patience", "epochs")
    del again["train_seconds"], whole["train_seconds"]
    assert again == whole
    assert not kept.exists()


def test_an_interrupted_training_ends_with_a_sentence(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.nightly.train_nightly", interrupted)
    monkeypatch.setattr(protocols, "judge_leave_one_out", interrupted)
    sequences = home / "s.txt"
    sequences.write_text("1 2 3 4 5")
    for command in (["train", *HOURS], ["evaluate", "--sequences", str(sequences)]):
        done = CliRunner(env={"COLUMNS": "300"}).invoke(build(), command)
        assert done.exit_code == 130
        assert "the same command goes on after the last pass kept" in done.output


def test_last_items_are_taken_from_a_file_of_their_own(home: Path) -> None:
    sequences, targets, figures = (home / n for n in ("s.txt", "t.txt", "figures.json"))
    lines = [" ".join(f"i{(n + step) % 9}" for step in range(4)) for n in range(20)]
    sequences.write_text("\n".join(lines))
    targets.write_text("\n".join(f"i{(n + 4) % 9}" for n in range(20)))
    run_evaluate("--sequences", sequences, "--targets", targets, "--json", figures)
    told = json.loads(figures.read_text())
    assert (told["users"], told["items"], told["left_out"]) == (20, 9, 0)


def test_what_cannot_be_judged_is_refused_before_it_is_learned(tmp_path: Path) -> None:
    sequences = tmp_path / "s.txt"
    with pytest.raises(BadInput, match=r"cannot read .*s.txt"):
        run_evaluate("--sequences", sequences)
    sequences.write_text("1 2 3 4 5\n")
    for out in (tmp_path, tmp_path / "no" / "out.json"):
        with pytest.raises(BadInput, match="give a file in a folder that exists"):
            run_evaluate("--sequences", sequences, "--json", out)
    with pytest.raises(ConfigError, match="no model size 'huge'"):
        run_evaluate("--sequences", sequences, "--size", "huge")
