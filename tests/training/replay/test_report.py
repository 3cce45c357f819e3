from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from training.baselines import DAY_US
from training.evaluation import Evaluation
from training.replay.ages import by_age
from training.replay.clocks import parse_policies
from training.replay.plot import draw_bars, plot_report
from training.replay.report import report
from training.replay.run import Night, Outcome, Played
from training.replay.timeline import HOUR_US

from .conftest import timeline

Events = Callable[[str], pa.Table]
DAY, USERS = 86400, 20


@pytest.fixture
def played(events: Events) -> Played:
    """Twenty users with an event on each of four days, of which the last three are replayed."""
    rows = [
        f"u{user:02} i{(user + day) % 25:02} play {day * DAY + 3600 * (user % 20) + 60 * day}"
        for user in range(USERS)
        for day in range(4)
    ]
    world = timeline(events("\n".join(rows)), from_share=0.25)
    assert len(world.targets) == 60
    names = "frozen/never,live/never,live/daily-plain,live/nightly,popular"
    ranks = {"frozen/never": 9, "live/never": 2, "live/daily-plain": 0, "live/nightly": 0}
    costs = dict(zip(names.split(","), (1.0, 3.0, 10.0, 50.0, 0.5), strict=True))
    times = world.everything.times[world.targets]
    outcomes = []
    for policy in parse_policies(names, step="day"):
        found = np.full(60, ranks.get(policy.name, 99), dtype=np.int32)
        age = times - world.start if policy.clock.name == "never" else times % DAY_US
        if policy.name == "live/nightly":
            found, age = found[:40], age[:40]
        outcomes.append(Outcome(policy, found, age, costs[policy.name], 0.0))
    return Played(world, outcomes, Night(7.0, 1.0, cut=False), {})


def row(found: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = [row for row in found["policies"] if row["name"] == name]
    return one


def test_figures_are_those_of_the_ranks(played: Played) -> None:
    found = report(played, seed=1)
    frozen, live = row(found, "frozen/never"), row(found, "live/never")
    assert frozen["ndcg@10"] == round(1 / np.log2(11), 6)
    assert (live["ndcg@10"], live["recall@10"]) == (0.5, 1.0)
    assert live["interval"] == [0.5, 0.5]
    assert (live["state"], live["model"], live["encoder"]) == ("live", "never", "full")
    assert live["compute_seconds"] == 3.0
    assert live["difference"]["to"] == "frozen/never"
    assert live["difference"]["ndcg@10"] == round(0.5 - 1 / np.log2(11), 6)
    popular = row(found, "popular")
    assert (popular["ndcg@10"], popular["recall@10"], popular["encoder"]) == (0, 0, None)
    cold, warm = live["groups"]["cold users"], live["groups"]["warm users"]
    assert cold == {
        "events": 60,
        "ndcg@10": 0.5,
        "interval": [0.5, 0.5],
        "recall@10": 1.0,
        "recall_interval": [1.0, 1.0],
    }
    assert (warm["events"], warm["ndcg@10"], warm["recall_interval"]) == (0, 0.0, [0.0, 0.0])
    assert (found["data"]["replayed"], found["night_seconds"]) == (60, 7.0)


def test_what_was_cut_short_is_told_and_not_recommended(played: Played) -> None:
    found = report(played, seed=1)
    assert found["cut"] == ["live/nightly"]
    assert row(found, "live/nightly")["events"] == 40
    assert found["frontier"] == ["popular", "frozen/never", "live/never", "live/daily-plain"]
    assert found["recommended"]["policy"] == "live/daily-plain"
    assert "better than everything cheaper" in found["recommended"]["why"]


def test_what_cannot_be_told_from_the_best_is_enough(played: Played) -> None:
    users = played.timeline.everything.users[played.timeline.targets]
    _, live, tuned, *_ = played.outcomes
    # The costly one is a little better for eleven users, and as much worse for nine.
    cheap = np.where(users < 11, 1, 0).astype(np.int32)
    outcomes = [
        Outcome(live.policy, cheap, live.model_ages, 3.0, 0.0),
        Outcome(tuned.policy, 1 - cheap, tuned.model_ages, 10.0, 0.0),
    ]
    found = report(Played(played.timeline, outcomes, Night(7.0, 1.0, cut=False), {}), seed=1)
    assert found["frontier"] == ["live/never", "live/daily-plain"]
    assert (found["recommended"]["policy"], found["recommended"]["best"]) == (
        "live/never",
        "live/daily-plain",
    )
    assert "within noise" in found["recommended"]["why"]


def test_forgetting_is_told_against_the_first_night(played: Played) -> None:
    users, shown = np.array([1, 1, 2]), np.zeros(0, dtype=bool)
    memory = {
        "never": Evaluation(np.array([0, 0, 2]), users, shown),
        "daily-plain": Evaluation(np.array([2, 2, 2]), users, shown),
    }
    (row,) = report(replace(played, memory=memory), seed=1)["forgetting"]
    assert (row["model"], row["events"]) == ("daily-plain", 3)
    assert (row["ndcg@10"], row["first_night"]) == (0.5, round(2.5 / 3, 6))
    assert row["difference"] == [-0.5, 0.0]


def test_curves_compare_the_same_events(played: Played) -> None:
    found = report(played, seed=1)
    frozen = row(found, "frozen/never")["by_state_age"]
    assert [point["age"] for point in frozen] == [
        "under an hour",
        "1 to 6 hours",
        "6 to 24 hours",
        "1 to 3 days",
    ]
    assert sum(point["events"] for point in frozen) == 60
    assert {point["freshest"] for point in frozen} == {0.5}
    (live,) = row(found, "live/never")["by_state_age"]
    assert (live["age"], live["events"]) == ("live", 60)
    aged = row(found, "live/never")["by_model_age"]
    assert {point["freshest"] for point in aged} == {1.0}
    assert {point["ndcg@10"] for point in aged} == {0.5}


def test_ages_fall_into_classes_that_end_before_their_end() -> None:
    ages = np.array([0, 1, HOUR_US - 1, HOUR_US, DAY_US, 70 * DAY_US])
    found = {name: there.tolist() for name, there in by_age(ages)}
    assert found == {
        "live": [True, False, False, False, False, False],
        "under an hour": [False, True, True, False, False, False],
        "1 to 6 hours": [False, False, False, True, False, False],
        "1 to 3 days": [False, False, False, False, True, False],
        "over 8 weeks": [False, False, False, False, False, True],
    }


def test_what_was_cut_short_is_drawn_apart_from_the_ranking(played: Played) -> None:
    from matplotlib.figure import Figure

    found = report(played, seed=1)
    axes = Figure().subplots()
    draw_bars(axes, found["policies"], found)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [
        "live/nightly (40 of 60)",
        "popular",
        "frozen/never",
        "live/never",
        "live/daily-plain",
    ]
    assert [bar.get_hatch() for bar in axes.patches] == ["//", None, None, None, None]


def test_a_report_is_drawn(played: Played, tmp_path: Path) -> None:
    plot_report(report(played, seed=1), tmp_path / "replay.png")
    assert (tmp_path / "replay.png").read_bytes().startswith(b"\x89PNG")
