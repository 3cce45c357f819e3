"""What became of an experiment, from lists and events written by hand; and how sure that is."""

import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from nearline.domains import load_domain
from nearline.errors import BadInput, MissingPartition
from nearline.experiments import Arm, Experiment
from nearline.intake.impressions import IMPRESSION_SCHEMA, IMPRESSIONS
from nearline.lake import EVENTS, Lake
from nearline.schema import EVENT_SCHEMA
from nearline.windows import Window
from pipeline.experiments.command import app
from pipeline.experiments.intervals import Interval, clustered_share, wilson
from pipeline.experiments.results import compute

START = datetime(2026, 1, 2, 12, tzinfo=UTC)
WINDOW = Window(START, START + timedelta(hours=2))
DOMAIN = load_domain("commerce")
HALVES = Experiment(arms={"control": Arm(share=0.5), "new": Arm(share=0.5)})


def shown(user: str, request: str, arm: str, experiment: str = "test") -> dict[str, Any]:
    return {
        "user_id": user,
        "request_id": request,
        "arm": arm,
        "experiment": experiment,
        "item_ids": ["a", "b"],
        "received_ts": START,
    }


def done(user: str, request: str | None, kind: str, item: str = "a") -> dict[str, Any]:
    row = dict.fromkeys(EVENT_SCHEMA.names) | {"event_ts": START, "received_ts": START}
    return row | {
        "event_id": f"{user}-{request}-{kind}-{item}",
        "user_id": user,
        "request_id": request,
        "event_type": kind,
        "item_id": item,
    }


def write(lake: Lake, lists: Iterable[dict[str, Any]], events: Iterable[dict[str, Any]]) -> None:
    tables = (
        (IMPRESSIONS, pa.Table.from_pylist(list(lists), schema=IMPRESSION_SCHEMA)),
        (EVENTS, pa.Table.from_pylist(list(events), schema=EVENT_SCHEMA)),
    )
    for dataset, table in tables:
        lake.write_hour(dataset, START, table)
        lake.mark_complete(dataset, WINDOW, rows=table.num_rows)


@pytest.mark.filterwarnings("error")
def test_lists_are_counted_by_what_followed_them(home: Path) -> None:
    lake = Lake.open()
    lists = [
        *[shown("ann", f"r{n}", "control") for n in range(4)],
        shown("bob", "r4", "new"),
        shown("bob", "r5", "new"),
        shown("eve", "r6", "new"),
        shown("eve", "r7", "control"),  # dealt out anew meanwhile
        shown("zoe", "r8", "new", experiment="other"),
    ]
    events = [
        done("ann", "r0", "view"),
        done("ann", "r0", "add_to_cart"),
        done("ann", "r1", "view", item="c"),  # of no item of the list
        done("bob", "r2", "view"),  # another's list
        done("bob", "r4", "purchase", item="b"),
        done("bob", "r5", "search"),  # nothing positive
        done("bob", None, "view"),
        done("zoe", "r8", "view"),
    ]
    write(lake, lists, events)
    found = compute(lake, "test", WINDOW, DOMAIN, HALVES)
    told = {
        arm.arm: (arm.users, arm.lists, arm.clicked.value, arm.converted.value)
        for arm in found.arms
    }
    assert told == {"control": (1, 4, 0.25, 0.0), "new": (1, 2, 0.5, 0.5)}
    assert found.moved == 1
    control, new = found.arms
    assert control.clicked_lift is None
    assert new.clicked_lift is not None
    assert new.clicked_lift.value == 0.25
    assert new.clicked_lift.low < 0 < new.clicked_lift.high
    with pytest.raises(BadInput, match="'nothing'"):
        compute(lake, "nothing", WINDOW, DOMAIN)
    with pytest.raises(MissingPartition, match="impressions is not complete"):
        compute(lake, "test", Window(START, WINDOW.end + timedelta(hours=1)), DOMAIN)


def test_what_follows_a_list_on_another_day_counts(home: Path) -> None:
    lake, midnight = Lake.open(), START.replace(hour=0) + timedelta(days=1)
    window = Window(midnight - timedelta(hours=1), midnight + timedelta(hours=1))
    lists, events = [shown("ann", "r0", "new")], [done("ann", "r0", "view")]
    lake.write_hour(IMPRESSIONS, window.start, pa.Table.from_pylist(lists, IMPRESSION_SCHEMA))
    lake.write_hour(EVENTS, midnight, pa.Table.from_pylist(events, EVENT_SCHEMA))
    for dataset in (IMPRESSIONS, EVENTS):
        lake.mark_complete(dataset, window, rows=1)
    [arm] = compute(lake, "test", window, DOMAIN).arms
    assert (arm.users, arm.lists, arm.clicked.value) == (1, 1, 1.0)


def test_shares_of_users_that_cannot_be_chance_are_told(home: Path) -> None:
    lake = Lake.open()
    arms = ["new"] * 130 + ["control"] * 70
    write(lake, [shown(f"u{n}", f"r{n}", arm) for n, arm in enumerate(arms)], [])
    (home / "experiments.yaml").write_text(
        "test: {arms: {control: {share: 0.5}, new: {share: 0.5}}}"
    )
    found = compute(lake, "test", WINDOW, DOMAIN, HALVES)
    assert [arm.dealt_well for arm in found.arms] == [False, False]
    command = ["results", "test", "--start", "2026-01-02T12:00Z", "--end", "2026-01-02T14:00Z"]
    shell = CliRunner().invoke(app, command)
    assert "another share of the users" in " ".join(shell.stderr.split())
    told = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert [(arm["arm"], arm["users"]) for arm in told["arms"]] == [("control", 70), ("new", 130)]
    assert "new" in CliRunner().invoke(app, ["list"]).stdout


def test_an_interval_is_wilsons_where_each_user_has_one_list() -> None:
    found = clustered_share([1] * 15 + [0] * 133, [1] * 148)  # Newcombe 1998, table I: 15 of 148
    assert (found.low, found.high) == pytest.approx((0.0624, 0.1605), abs=5e-4)


def test_users_who_ask_often_do_not_make_it_surer() -> None:
    once = clustered_share([1, 0] * 50, [1] * 100)
    often = clustered_share([20, 0] * 50, [20] * 100)
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    none = clustered_share([0] * 100, [20] * 100)
    assert none.high == pytest.approx(wilson(0, 100).high)
    assert clustered_share([], []) == Interval(0.0, 0.0, 1.0)


def test_a_difference_is_that_of_newcombe() -> None:
    # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10: 56/70 - 48/80.
    found = wilson(56 / 70, 70).minus(wilson(48 / 80, 80))
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-4)


def test_an_interval_holds_what_is_true_as_often_as_it_says() -> None:
    """Users click by their own rates, and ask as often as they like."""
    rng = np.random.default_rng(1)
    truth, held, rounds = 0.2, 0, 400
    for _ in range(rounds):
        rates = rng.beta(2, 8, size=300)
        trials = rng.geometric(0.2, size=300)
        found = clustered_share(rng.binomial(trials, rates), trials)
        held += found.low <= truth <= found.high
    assert math.isclose(held / rounds, 0.95, abs_tol=0.03)
