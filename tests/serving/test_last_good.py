"""Files that a person writes, wrong ones too, and workers that start while they are wrong."""

import os
from pathlib import Path
from typing import Any

import pytest

from nearline.errors import ConfigError
from nearline.settings import settings
from serving.last_good import Watched
from serving.metrics import Metrics

USERS = tuple(f"u{n}" for n in range(40))
EXPERIMENTS = "test: {arms: {control: {share: 0.5}, wide: {share: 0.5}}}"
WRONG = {"experiments": "test: {arms: {}}", "promotions": "- {item_id: i8, place: 0}"}


def number(text: str, path: Path) -> int:
    """The number that a text is; 0 for none."""
    try:
        return int(text or "0")
    except ValueError:
        raise ConfigError(f"{path} is no number") from None


class File:
    """A file of a number, and workers that follow it."""

    def __init__(self, home: Path) -> None:
        self.path, self.good = home / "number.yaml", home / "last_good" / "number.yaml"
        self.metrics, self.written = Metrics(), 0

    def write(self, text: str) -> None:
        staged = self.path.with_suffix(".tmp")
        staged.write_text(text)
        self.written += 1
        os.utime(staged, ns=(self.written, self.written))  # whatever the file system's clock tells
        staged.replace(self.path)

    def worker(self) -> Watched[int]:
        return Watched("number", self.path, number, self.metrics)

    def started(self) -> Watched[int]:
        worker = self.worker()
        worker.refresh()
        return worker

    @property
    def failures(self) -> float:
        return self.metrics.refresh_failures.labels("number")._value.get()


@pytest.fixture
def file(home: Path) -> File:
    return File(home)


def test_a_worker_that_starts_takes_what_the_others_have(file: File, caplog: Any) -> None:
    file.write("7")
    running = file.started()
    file.write("seven")
    running.refresh()
    anew = file.started()
    assert (running.told, anew.told, file.failures) == (7, 7, 2)
    assert f"good last: {file.good}" in caplog.text
    assert caplog.text.count("number.yaml is no number") == 2
    for worker in (running, anew):
        file.write("8")
        worker.refresh()
        assert worker.told == 8
    assert file.failures == 2


def test_a_file_that_is_removed_is_not_remembered(file: File) -> None:
    file.write("7")
    running = file.started()
    file.path.unlink()
    running.refresh()
    file.write("seven")
    assert file.started().told == 0


def test_a_file_that_was_removed_while_nobody_ran_is_not_remembered(file: File) -> None:
    file.write("7")
    file.started()
    file.path.unlink()
    file.started()
    file.write("seven")
    assert file.started().told == 0


def test_a_slow_worker_keeps_nothing_that_is_older(
    file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write("7")
    slow, quick = file.worker(), file.worker()

    def parse(text: str, path: Path) -> int:
        file.write("8")
        quick.refresh()
        return number(text, path)

    monkeypatch.setattr(slow, "_parse", parse)
    slow.refresh()
    assert (slow.told, file.good.read_text()) == (7, "8")


@pytest.mark.parametrize("kept", [None, "damaged"])
def test_without_a_good_one_there_is_none(file: File, kept: str | None) -> None:
    if kept:
        file.good.parent.mkdir()
        file.good.write_text(kept)
    file.write("seven")
    assert file.started().told == 0


def test_a_text_that_cannot_be_kept_counts_all_the_same(file: File, caplog: Any) -> None:
    file.good.parent.write_text("no folder")
    file.write("7")
    assert file.started().told == 7
    assert "a worker that starts may not know the number" in caplog.text


def test_a_worker_that_starts_beside_wrong_files_answers_as_the_others(
    world: Any, eventually: Any
) -> None:
    items = [f"i{n}" for n in range(12)]
    world.catalogue(*({"item_id": item} for item in items))
    world.promote(items)
    settings().experiments.write_text(EXPERIMENTS)
    settings().promotions.write_text(
        "- {item_id: i7, place: 1, from: 2026-01-01, until: 2026-02-01}"
    )

    def answers(client: Any) -> list[tuple[str, str]]:
        asked = (client.get(f"/v1/users/{user}/recommendations").json() for user in USERS)
        return [(answer["arm"], answer["items"][0]["source"]) for answer in asked]

    with world.client() as one:
        for what, text in WRONG.items():
            (settings().home / f"{what}.yaml").write_text(text)
            failed = f'nearline_refresh_failures_total{{what="{what}"}} 1.0'
            eventually(lambda failed=failed: failed in one.get("/metrics").text)
        with world.client() as other:
            assert answers(one) == answers(other)
            for what in WRONG:
                failed = f'nearline_refresh_failures_total{{what="{what}"}} 1.0'
                assert failed in other.get("/metrics").text
        assert {arm for arm, _ in answers(one)} == {"control", "wide"}
        assert {source for _, source in answers(one)} == {"promotion"}
