"""Arms that lose the control's clicks are closed, others are kept, whatever chance does."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from nearline.cli import build
from nearline.closed_arms import ClosedArms
from nearline.experiments import Assigned
from nearline.intake.impressions import IMPRESSIONS
from nearline.lake import EVENTS, Lake
from nearline.settings import settings
from nearline.windows import HOUR, Window
from pipeline.experiments.harm import close_harmful, complete_hours, lost
from pipeline.experiments.intervals import NOT_BY_CHANCE_Z, clustered_share
from tests.pipeline.test_experiment_results import WINDOW, done, shown, write

NOW = WINDOW.end + timedelta(hours=1)
LISTS = 5
"""Of each user."""


def play(rates: dict[str, tuple[int, float]], kind: str = "add_to_cart") -> None:
    """Arm → its users, and the share of lists that they click on average, each at an own rate."""
    rng, lists, events = np.random.default_rng(1), [], []
    for arm, (users, share) in rates.items():
        for user in range(users):
            rate = rng.beta(4 * share, 4 * (1 - share))
            for number in range(LISTS):
                name, request = f"{arm}{user}", f"{arm}{user}-{number}"
                lists.append(shown(name, request, arm))
                if rng.random() < rate:
                    events.append(done(name, request, kind))
    write(Lake.open(), lists, events)


@pytest.fixture
def file(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes an experiment with these arms beside the control, and these guardrails."""
    monkeypatch.setenv("NEARLINE_DOMAIN", "commerce")
    settings.cache_clear()

    def experiment(*arms: str, guardrails: str = "{}") -> None:
        share = 1 / (len(arms) + 1)
        told = ", ".join(f"{arm}: {{share: {share}}}" for arm in ("control", *arms))
        text = f"test: {{arms: {{{told}}}, guardrails: {guardrails}}}"
        (home / "experiments.yaml").write_text(text)

    return experiment


def closed() -> dict[str, str]:
    """The closed arms of the experiment, with their reasons."""
    return {arm.arm: why.reason for arm, why in ClosedArms.open().read().items()}


def close(**how: Any) -> int:
    return close_harmful(WINDOW.end, clock=lambda: NOW, **how)


def test_a_harmful_arm_is_closed_and_others_are_kept(file: Callable[..., None]) -> None:
    file("halves", "alike", "better", "small")
    play(
        {
            "control": (400, 0.4),
            "halves": (400, 0.2),
            "alike": (400, 0.38),
            "better": (400, 0.5),
            "small": (20, 0.2),  # too few to tell
        }
    )
    assert close() == 1
    [(arm, reason)] = closed().items()
    assert arm == "halves"
    assert reason.startswith("clicked_loss is 0.5261")
    assert reason.endswith(f", and at most 0.2 is allowed, in {WINDOW}")
    assert close() == 0


def test_conversions_are_judged_too(file: Callable[..., None]) -> None:
    file("halves", guardrails="{clicked_loss: null}")
    play({"control": (400, 0.4), "halves": (400, 0.2)}, kind="purchase")
    assert close() == 1
    assert closed()["halves"].startswith("converted_loss is 0.5261")


@pytest.mark.parametrize(
    "guardrails",
    ["{clicked_loss: null, converted_loss: null}", "{clicked_loss: 0.7, converted_loss: 0.7}"],
)
def test_what_a_guardrail_allows_closes_nothing(file: Callable[..., None], guardrails: str) -> None:
    file("halves", guardrails=guardrails)
    play({"control": (400, 0.4), "halves": (400, 0.2)})
    assert (close(), closed()) == (0, {})


def test_an_arm_that_was_opened_again_is_judged_by_what_came_since(
    file: Callable[..., None],
) -> None:
    file("halves")
    play({"control": (400, 0.4), "halves": (400, 0.2)})
    close()
    arm, file_of_arms = Assigned("test", "halves"), ClosedArms.open()
    file_of_arms.reopen(arm, now=WINDOW.start + timedelta(minutes=20))
    assert (close(), closed()) == (0, {})
    file_of_arms.close(arm, "again", now=NOW)
    assert closed() == {"halves": "again"}
    assert file_of_arms.reopened("test") is None


def test_chance_alone_closes_an_arm_hardly_ever() -> None:
    """An arm that loses just what it may, looked at once: one time in two thousand."""
    rng, closed = np.random.default_rng(1), 0
    for _ in range(500):
        own, control = (
            clustered_share(rng.binomial(LISTS, rates), [LISTS] * 300, z=NOT_BY_CHANCE_Z)
            for rates in (rng.beta(4 * a, 4 * (1 - a), size=300) for a in (0.32, 0.4))
        )
        closed += lost(own, control, 0.2)
    assert closed <= 2


def test_only_complete_hours_are_judged(home: Path) -> None:
    lake, day = Lake.open(), Window.trailing(WINDOW.end, hours=24)
    assert complete_hours(lake, day) is None
    for dataset, lacking in ((IMPRESSIONS, 3), (EVENTS, 9)):
        for part in (
            Window(day.start, day.start + lacking * HOUR),
            Window(day.start + (lacking + 1) * HOUR, day.end),
        ):
            lake.mark_complete(dataset, part, rows=0)
    assert complete_hours(lake, day) == Window(day.start + 10 * HOUR, day.end)


def test_housekeeping_closes_them(file: Callable[..., None]) -> None:
    file("halves")
    play({"control": (400, 0.4), "halves": (400, 0.2)})
    end = f"{WINDOW.end:%Y-%m-%dT%H:%MZ}"
    shell = CliRunner().invoke(build(), ["housekeeping", "--end", end, "--json"])
    assert json.loads(shell.stdout)["closed_arms"] == 1
    assert set(closed()) == {"halves"}


def test_without_experiments_nothing_is_read(home: Path) -> None:
    assert close() == 0
