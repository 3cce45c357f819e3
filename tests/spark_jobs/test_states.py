"""User states: what they hold, when they come and go, and that sequences never depend on them."""

import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from nearline.settings import settings
from spark_jobs.sequences import USER_SEQUENCE
from spark_jobs.states import BUCKETS, LIST_SCHEMA
from spark_jobs.tails import TAIL_SCHEMA
from spark_jobs.user_states import USER_STATES, past_files, roll_user_states

DAYS = [date(2026, 1, 10) + timedelta(days=n) for n in range(5)]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Events may be two hours late, sequences hold three of them."""
    patch.setenv("NEARLINE_LATE_HOURS", "2")
    patch.setenv("NEARLINE_SEQUENCE_LENGTH", "3")
    settings.cache_clear()


def fill(world: Any) -> None:
    """Five days: ada comes every 5 hours, bob every 19, cyd once."""
    world.arrive(
        *(world.row(f"a{n:02}", 5 * n, user_id="ada") for n in range(24)),
        *(world.row(f"b{n:02}", 19 * n + 1, user_id="bob", item_id="brazil") for n in range(6)),
        world.row("c", 3.5, user_id="cyd"),
    )


@pytest.fixture(scope="module")
def five_days(new_world: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a world in which the five days were run at once."""
    home = tmp_path_factory.mktemp("five_days")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEARLINE_HOME", str(home))
        shorten(patch)
        world = new_world()
        fill(world)
        world.run(0, 120)
    return home


@pytest.fixture
def lived(five_days: Path, home: Path, new_world: Callable[[], Any]) -> Any:
    """A world of the test's own that has seen the five days."""
    shutil.copytree(five_days, home, dirs_exist_ok=True)
    return new_world()


def of_state(world: Any, day: int) -> dict[str, list[str]]:
    """The event ids that a state holds, by user."""
    found: dict[str, list[str]] = {}
    for bucket in range(BUCKETS):
        for row in world.rows(USER_STATES.bucket_name(bucket), 24 * day, 24 * day + 24):
            found.setdefault(row["user_id"], []).append(row["event_id"])
    return found


def outcome(world: Any) -> dict[str, bytes]:
    return {path: found for path, found in world.files().items() if USER_STATES.dataset not in path}


def test_a_state_holds_the_newest_events_of_everyone(world: Any) -> None:
    fill(world)
    world.run(0, 49)
    assert USER_STATES.days(world.lake) == [DAYS[1]]
    assert of_state(world, 1) == {
        "ada": ["a02", "a03", "a04"],
        "bob": ["b00", "b01"],
        "cyd": ["c"],
    }
    listed = {row["bucket"]: row["rows"] for row in world.rows(USER_STATES.dataset)}
    assert sum(listed.values()) == 6
    assert all(world.rows(USER_STATES.bucket_name(bucket)) for bucket in listed)


def test_sequences_are_the_same_from_any_state_and_from_none(
    lived: Any,
    other_worlds: Callable[[], Any],
) -> None:
    expected, files = outcome(lived), lived.files()
    assert sum(USER_SEQUENCE in path for path in expected) > 24

    stepwise = other_worlds()
    fill(stepwise)
    for first, last in [(0, 50), (50, 74), (74, 98)]:
        stepwise.run(first, last)
    assert USER_STATES.days(stepwise.lake) == DAYS[2:]
    USER_STATES.remove(stepwise.lake, [DAYS[4]])
    stepwise.run(98, 101)
    USER_STATES.remove(stepwise.lake, USER_STATES.days(stepwise.lake))
    stepwise.run(101, 120)
    assert outcome(stepwise) == expected
    assert stepwise.files() == files


def test_a_state_is_stale_once_an_older_day_is_written_again(
    lived: Any, other_worlds: Callable[[], Any]
) -> None:
    lived.arrive(lived.row("new", 30.5, user_id="cyd"))
    lived.run(30, 31)
    assert USER_STATES.days(lived.lake) == [DAYS[1]]
    lived.run(31, 120)
    assert of_state(lived, 4)["cyd"] == ["c", "new"]

    bulk = other_worlds()
    fill(bulk)
    bulk.arrive(bulk.row("new", 30.5, user_id="cyd"))
    bulk.run(0, 120)
    assert outcome(lived) == outcome(bulk)


def test_a_state_that_was_not_finished_is_none(lived: Any) -> None:
    before = lived.files()
    listed = [row["bucket"] for row in lived.rows(USER_STATES.dataset)]
    lived.lake.write_day(USER_STATES.dataset, DAYS[4], LIST_SCHEMA.empty_table())
    lived.lake.write_day(USER_STATES.bucket_name(listed[0]), DAYS[4], TAIL_SCHEMA.empty_table())
    assert USER_STATES.days(lived.lake) == []
    lived.run(110, 120)
    assert lived.files() == before


def test_old_states_are_removed_whole(spark: SparkSession, lived: Any) -> None:
    USER_STATES.remove(lived.lake, [DAYS[4]])
    for day in (1, 2, 3, 4):
        roll_user_states(spark, lived.at(24 * day + 2))
    assert USER_STATES.days(lived.lake) == DAYS[2:]
    assert not of_state(lived, 1)
    assert of_state(lived, 4)["ada"] == ["a17", "a18", "a19"]
    roll_user_states(spark, lived.at(24 * 4 + 2))
    roll_user_states(spark, lived.at(24 * 2 + 2))
    assert USER_STATES.days(lived.lake) == DAYS[2:]


def test_only_the_buckets_of_the_users_are_read(lived: Any) -> None:
    every = past_files(lived.lake, DAYS[4])
    one = past_files(lived.lake, DAYS[4], pa.array(["cyd"]))
    assert len(every) == 3
    assert len(one) == 1
    assert set(one) < set(every)
