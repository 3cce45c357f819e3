"""An event sees neither itself nor anything later; a killed run goes on; clocks have a worth."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from training.baselines import DAY_US
from training.replay.clocks import Clock, parse_policies
from training.replay.models import ModelLine
from training.replay.play import MISSED, foresee, marks, stretches
from training.replay.rivals import BaselineLine
from training.replay.run import Played, key, replay
from training.replay.store import Parts
from training.replay.tasks import Run, Task
from training.replay.timeline import HOUR_US, Timeline

from .conftest import HOUR, orderly, timeline

Events = Callable[[str], pa.Table]
POLICIES = (
    "live/never,frozen/never,live/daily-plain,live/daily-distil,nightly/daily-distil,"
    "popular,popular_1d,item_to_item"
)
CUT = 6 * 24 * HOUR
"""Second of the changed world from which on everything is another."""


def run(world: Timeline, folder: Path, policies: str = POLICIES, minutes: float = 5) -> Played:
    asked = parse_policies(policies, step="day")
    return replay(world, asked, seed=3, max_minutes=minutes, workers=1, folder=folder)


def later_is_other(rows: str) -> str:
    """From CUT on each event is on another item that is known."""
    changed = []
    for row in rows.splitlines():
        user, item, kind, second = row.split()
        if int(second) >= CUT:
            item = f"i{(int(item[1:]) + 11) % 30:02}"
        changed.append(f"{user} {item} {kind} {second}")
    return "\n".join(changed)


@pytest.fixture
def two_worlds(events: Events) -> tuple[Timeline, Timeline]:
    worlds = [timeline(events(rows)) for rows in (orderly(), later_is_other(orderly()))]
    return worlds[0], worlds[1]


def before_cut(world: Timeline) -> int:
    first = int(world.everything.times.min())
    midnight = first // (24 * HOUR_US) * 24 * HOUR_US
    return int((world.everything.times[world.targets] < midnight + CUT * 1_000_000).sum())


def leaks(worlds: tuple[Timeline, Timeline], folder: Path, policies: str = POLICIES) -> list[str]:
    """Policies whose answers before CUT depend on what happens after it."""
    count = before_cut(worlds[0])
    assert count == before_cut(worlds[1])
    assert 30 < count < len(worlds[0].targets) - 30
    one, two = (run(world, folder, policies).outcomes for world in worlds)
    assert any(not np.array_equal(a.ranks, b.ranks) for a, b in zip(one, two, strict=True))
    return [
        a.policy.name
        for a, b in zip(one, two, strict=True)
        if not np.array_equal(a.ranks[:count], b.ranks[:count])
    ]


def test_nothing_depends_on_what_comes_later(
    two_worlds: tuple[Timeline, Timeline], tmp_path: Path
) -> None:
    assert leaks(two_worlds, tmp_path) == []


@pytest.mark.parametrize(
    ("where", "name", "policy"),
    [(ModelLine, "tick", "live/daily-plain"), (BaselineLine, "tick", "popular")],
)
def test_a_planted_leak_in_what_is_learned_is_seen(
    two_worlds: tuple[Timeline, Timeline],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: type,
    name: str,
    policy: str,
) -> None:
    honest = getattr(where, name)
    monkeypatch.setattr(where, name, lambda line, moment: honest(line, moment + 48 * HOUR_US))
    assert leaks(two_worlds, tmp_path, policy) == [parse_policies(policy, step="day")[0].name]


def see_themselves(events: Events, folder: Path) -> list[str]:
    """Lines whose scores for the last event depend on which item it is on."""
    found: list[list[np.ndarray]] = []
    names = ("never", "popular", "item_to_item")
    touched = {row.split()[1] for row in orderly().splitlines() if row.startswith("u00 ")}
    for item in sorted({f"i{number:02}" for number in range(30)} - touched)[:2]:
        last = f"u00 {item} play {8 * 24 * HOUR - 1}"
        world = timeline(events(f"{orderly()}\n{last}"))
        run(world, folder, "live/never")
        here = Run(world, folder / key(world, 3), seed=3)
        lines = [here.line(Clock(name)) for name in names]
        found.append([scores_of(line, world) for line in lines])
    pairs = zip(names, *found, strict=True)
    return [name for name, one, other in pairs if not np.array_equal(one, other)]


def test_an_event_does_not_change_its_own_scores(events: Events, tmp_path: Path) -> None:
    assert see_themselves(events, tmp_path) == []


def test_a_planted_leak_in_the_state_is_seen(
    events: Events, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.replay.models.known_states", lambda data, targets, _: targets)
    assert see_themselves(events, tmp_path) == ["never"]


def scores_of(line: object, world: Timeline) -> np.ndarray:
    assert isinstance(line, ModelLine | BaselineLine)
    seen = world.seen(before=world.end, items=line.items)
    target = seen.place[world.targets[-1:]]
    found: np.ndarray = line.scorer("live", "full", seen.data)(target)
    return found


def test_an_item_is_unknown_until_the_clock_has_ticked(events: Events, tmp_path: Path) -> None:
    new = [f"u{user:02} new play {6 * 24 * HOUR + user * HOUR}" for user in range(40)]
    world = timeline(events("\n".join([*orderly().splitlines(), *new])))
    found = run(world, tmp_path, "live/never,live/daily-plain,popular")
    is_new = world.everything.items[world.targets] == len(world.known_since)
    days = (world.everything.times[world.targets] // (24 * HOUR_US))[is_new]
    never, daily, popular = (outcome.ranks[is_new] == MISSED for outcome in found.outcomes)
    assert never.all(), "the model that never learns knows a new item"
    assert daily.tolist() == popular.tolist() == (days == days.min()).tolist()


def test_a_planted_leak_in_the_vocabulary_is_seen(
    events: Events, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Timeline, "items_before", lambda world, moment: len(world.known_since))
    with pytest.raises(AssertionError, match="never"):
        test_an_item_is_unknown_until_the_clock_has_ticked(events, tmp_path)


class Killed(Exception):
    """As a kill ends a run."""


def test_a_killed_run_goes_on_to_the_same_figures(
    world: Timeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(world, tmp_path / "whole")
    days = []

    def write(parts: Parts, day: int, found: object, save: Callable[[Path], None]) -> None:
        if len(days) in (1, 3, 6, 9):
            days.append(0)
            save(parts.line(day))
            raise Killed
        days.append(day)
        honest(parts, day, found, save)  # type: ignore[arg-type]

    honest = Parts.write
    monkeypatch.setattr(Parts, "write", write)
    for _ in range(4):
        with pytest.raises(Killed):
            run(world, tmp_path / "broken")
    again = run(world, tmp_path / "broken")
    for one, other in zip(whole.outcomes, again.outcomes, strict=True):
        np.testing.assert_array_equal(one.ranks, other.ranks, err_msg=one.policy.name)
        np.testing.assert_array_equal(one.model_ages, other.model_ages)

    def again_(run: Run, task: Task) -> int:
        raise AssertionError(f"{task} is played again")

    monkeypatch.setattr("training.replay.turns.play_turn", again_)
    kept = run(world, tmp_path / "broken")
    assert kept.night == again.night
    assert list(whole.memory) == ["never", "daily-plain", "daily-distil"]
    for name, memory in whole.memory.items():
        np.testing.assert_array_equal(memory.ranks, again.memory[name].ranks)
    assert whole.memory["never"].ndcg.sum() > 0
    assert [len(outcome.ranks) for outcome in kept.outcomes] == [len(world.targets)] * 8


def test_time_that_runs_out_leaves_what_was_played(world: Timeline, tmp_path: Path) -> None:
    cut = run(world, tmp_path, "live/never,popular", minutes=0)
    assert [len(outcome.ranks) for outcome in cut.outcomes] == [0, 0]
    whole = run(world, tmp_path, "live/never,popular")
    assert [len(outcome.ranks) for outcome in whole.outcomes] == [len(world.targets)] * 2


def test_clocks_side_by_side_find_the_same(world: Timeline, tmp_path: Path) -> None:
    asked = parse_policies("popular,popular_1d", step="day")
    options = {"seed": 3, "max_minutes": 5.0}
    one = replay(world, asked, workers=1, folder=tmp_path / "one", **options)  # type: ignore[arg-type]
    two = replay(world, asked, workers=2, folder=tmp_path / "two", **options)  # type: ignore[arg-type]
    for alone, beside in zip(one.outcomes, two.outcomes, strict=True):
        np.testing.assert_array_equal(alone.ranks, beside.ranks)


def test_a_state_is_worth_more_the_fresher_it_is(world: Timeline, tmp_path: Path) -> None:
    names = ["frozen/never", "nightly/never", "hourly/never", "live/never"]
    found = run(world, tmp_path, ",".join(names))
    hits = {o.policy.name: float((o.ranks == 0).mean()) for o in found.outcomes}
    # Four hours lie between a user's events: an hour's state knows all that a live one does.
    assert hits["frozen/never"] < hits["nightly/never"] < hits["live/never"] - 0.2
    assert hits["hourly/never"] == pytest.approx(hits["live/never"], abs=0.15)
    assert hits["live/never"] > 0.6


def test_stretches_end_with_the_turn_and_at_ticks(world: Timeline) -> None:
    clock = Clock.parse("daily-plain", step="day")
    found = list(stretches(world, clock))
    assert found[0][0] == world.start
    assert found[-1][1] == world.end
    ends = [end for _, end, _ in found]
    assert ends == marks(world).tolist(), "a turn of six hours, for a replay of some days"
    midnights = {end for end in ends[:-1] if end % DAY_US == 0}
    assert len(midnights) == 3
    assert {begin for begin, _, ticks in found if ticks} == midnights
    assert all(a[1] == b[0] for a, b in pairwise(found))
    quiet = list(stretches(world, Clock("never")))
    assert [(begin, end) for begin, end, _ in quiet] == [(b, e) for b, e, _ in found]
    assert not any(ticks for *_, ticks in quiet)


def test_a_stretch_without_events_is_nothing(world: Timeline) -> None:
    line = BaselineLine(world, "popular", world.start)
    ranks, seconds = foresee(world, line, world.start, world.start, [("live", "full")])
    assert ranks.shape == (1, 0)
    assert seconds.tolist() == [0]
