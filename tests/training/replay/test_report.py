from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure

from training.baselines import DAY_US
from training.evaluation import Evaluation
from training.replay.ages import by_age
from training.replay.clocks import parse_policies
from training.replay.plot import draw_ages, draw_bars, draw_costs, plot_report, spread
from training.replay.report import report
from training.replay.run import Night, Played
from training.replay.tasks import Outcome
from training.replay.timeline import HOUR_US

from .conftest import timeline

Events = Callable[[str], pa.Table]
DAY, USERS = 86400, 20
NIGHT = Night(7.0, 1.0, passes=9.0, cut=False)


@pytest.fixture
def played(events: Events) -> Played:
    """Twenty users with an event on each of four days, of which the last three are replayed.

    live/nightly has foreseen one of these.
    """
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
            found, age = found[:20], age[:20]
        outcomes.append(Outcome(policy, found, age, costs[policy.name], 0.0))
    compared = [outcome for outcome in outcomes if outcome.policy.name != "live/nightly"]
    return Played(world, outcomes, compared, NIGHT, {})


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
    assert (warm["events"], warm["ndcg@10"], warm["recall_interval"]) == (0, None, None)
    assert (found["data"]["replayed"], found["night_seconds"]) == (60, 7.0)


def test_what_was_cut_short_early_is_told_and_not_compared(played: Played) -> None:
    found = report(played, seed=1)
    assert found["cut"] == ["live/nightly"]
    assert found["left_out"] == [{"name": "live/nightly", "events": 20}]
    assert found["compared"]["events"] == 60
    cut = row(found, "live/nightly")
    assert (cut["events"], cut["ndcg@10"], cut["difference"], cut["shared"]) == (20, 1, None, None)
    assert found["frontier"] == ["popular", "frozen/never", "live/never", "live/daily-plain"]
    assert found["recommended"]["policy"] == "live/daily-plain"
    assert "better than everything cheaper" in found["recommended"]["why"]


def test_what_foresaw_nothing_has_no_figures(played: Played) -> None:
    one, none = played.outcomes[1], np.zeros(0, np.int64)
    nothing = replace(played.outcomes[3], ranks=none, model_ages=none, learning=0.0)
    cut = row(
        report(replace(played, outcomes=[one, nothing], compared=[one]), seed=1), "live/nightly"
    )
    assert (cut["events"], cut["by_state_age"], cut["by_model_age"]) == (0, [], [])
    shown = ("ndcg@10", "interval", "recall@10", "recall_interval", "difference", "shared")
    assert {cut[name] for name in shown} == {None}
    told = report(replace(played, outcomes=[nothing], compared=[]), seed=1)
    assert {"frontier", "recommended"}.isdisjoint(told)
    assert told["compared"] == {"events": 0, "until": None, "policies": []}


def test_policies_are_compared_on_the_same_events(played: Played) -> None:
    """One that was right until noon, when it was cut, does not look better for it."""
    _, live, tuned, *_ = played.outcomes
    early = np.arange(60) < 40
    whole = replace(live, ranks=np.where(early, 0, 99))
    cut = replace(tuned, ranks=np.zeros(40, int), model_ages=tuned.model_ages[:40])
    first = replace(whole, ranks=whole.ranks[:40], model_ages=live.model_ages[:40], learning=2.0)
    told = report(replace(played, outcomes=[whole, cut], compared=[first, cut]), seed=1)
    assert [one["ndcg@10"] for one in told["policies"]] == [round(2 / 3, 6), 1]
    assert [one["shared"]["ndcg@10"] for one in told["policies"]] == [1, 1]
    assert [one["shared"]["compute_seconds"] for one in told["policies"]] == [2, 10]
    assert row(told, "live/daily-plain")["difference"]["interval"] == [0, 0]
    assert (told["compared"]["events"], told["recommended"]["policy"]) == (40, "live/never")


def test_a_clock_that_has_not_ticked_yet_is_not_recommended(played: Played) -> None:
    _, live, tuned, *_ = played.outcomes
    idle = replace(tuned, ranks=live.ranks, model_ages=live.model_ages, learning=0.0)
    both = [live, idle]
    advice = report(replace(played, outcomes=both, compared=both), seed=1)["recommended"]
    assert advice["policy"] == "live/never"
    assert "nothing can be said of live/daily-plain" in advice["why"]


def test_a_baseline_is_no_clock_to_pay_for(played: Played) -> None:
    *_, popular = played.outcomes
    best = replace(popular, ranks=np.zeros(60, int))
    clocks = played.outcomes[:2]
    found = report(replace(played, outcomes=[*clocks, best], compared=[*clocks, best]), seed=1)
    assert found["frontier"] == ["popular"]
    assert found["recommended"]["policy"] == "live/never"
    assert found["recommended"]["baseline"]["name"] == "popular"
    assert "popular, without any model, is better than it (+0.5000" in found["recommended"]["why"]


def test_what_cannot_be_told_from_the_best_is_enough(played: Played) -> None:
    users = played.timeline.everything.users[played.timeline.targets]
    _, live, tuned, *_ = played.outcomes
    # The costly one is a little better for eleven users, and as much worse for nine.
    cheap = np.where(users < 11, 1, 0).astype(np.int32)
    outcomes = [
        Outcome(live.policy, cheap, live.model_ages, 3.0, 0.0),
        Outcome(tuned.policy, 1 - cheap, tuned.model_ages, 10.0, 0.0),
    ]
    found = report(Played(played.timeline, outcomes, outcomes, NIGHT, {}), seed=1)
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
    assert [point["behind"] for point in aged] == [[-0.5, -0.5]] * len(aged)


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


def test_what_is_not_compared_is_drawn_apart_from_the_ranking(played: Played) -> None:
    found = report(played, seed=1)
    axes = Figure().subplots()
    draw_bars(axes, found)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [
        "live/nightly (20 events)",
        "popular",
        "frozen/never",
        "live/never",
        "live/daily-plain",
    ]
    assert [bar.get_hatch() for bar in axes.patches] == ["//", None, None, None, None]


def test_all_policies_are_named_beside_their_cost_and_none_covers_another(played: Played) -> None:
    found = report(played, seed=1)
    axes = Figure().subplots()
    draw_costs(axes, [row for row in found["policies"] if row["shared"]], found["frontier"])
    assert {text.get_text() for text in axes.texts} == set(found["compared"]["policies"])
    heights = sorted(text.xyann[1] for text in axes.texts)
    assert min(b - a for a, b in pairwise(heights)) >= 0.05
    assert len(axes.xaxis.get_majorticklocs()) > 3


def test_names_make_room_for_one_another() -> None:
    assert spread([0.1, 0.5, 0.5, 0.9], apart=0.2) == pytest.approx([0.1, 0.5, 0.7, 0.9])
    assert spread([0.9, 0.95, 1.0], apart=0.2) == pytest.approx([0.6, 0.8, 1.0])


def test_what_ages_is_drawn_with_its_intervals_and_what_is_freshest_is_not(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.replay.plot.ENOUGH", 1)
    rows = [row for row in report(played, seed=1)["policies"] if row["shared"]]
    axes = Figure().subplots()
    draw_ages(axes, rows, "state")
    (frozen,) = axes.containers
    assert frozen.get_label() == "frozen/never"
    assert frozen.has_yerr


def test_a_report_is_drawn(played: Played, tmp_path: Path) -> None:
    plot_report(report(played, seed=1), tmp_path / "replay.png")
    assert (tmp_path / "replay.png").read_bytes().startswith(b"\x89PNG")
