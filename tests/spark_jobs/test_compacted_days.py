"""Days that were compacted are read, and written again, as if they had not been."""

from collections.abc import Callable
from typing import Any

from nearline.lake import EVENTS, QUARANTINE, RAW
from spark_jobs.cooccurrence import item_neighbours
from spark_jobs.partials import SCHEMAS
from spark_jobs.sequences import USER_SEQUENCE

HOURLY = (RAW, EVENTS, QUARANTINE, *SCHEMAS, USER_SEQUENCE)


def compact(world: Any) -> int:
    days = list(world.window(0, 24).days())
    return sum(world.lake.compact_day(dataset, day) for dataset in HOURLY for day in days)


def test_a_late_event_finds_its_hour_in_a_compacted_day(
    other_worlds: Callable[[], Any], spark: Any
) -> None:
    found = []
    for compacted in (False, True):
        world = other_worlds()
        for hour in range(4):
            world.arrive(
                world.row(f"a{hour}", hour + 0.5),
                world.row(f"b{hour}", hour + 0.6, user_id="bob", item_id="brazil"),
                world.row(f"bad{hour}", hour + 0.7, item_id="unknown"),
            )
        world.run(0, 24)
        if compacted:
            assert compact(world) == 4 * (len(HOURLY) - 1), "nobody searches here"
        late = {"received": 25.5, "user_id": "bob", "item_id": "casablanca"}
        world.arrive(world.row("late", 1.75, **late), world.row("a2", 24.5, item_id="brazil"))
        report = world.run(24, 26)
        assert (report.accepted, report.quarantined) == (1, {"duplicate": 1})
        assert item_neighbours(spark, world.at(3)) == 2
        for dataset in HOURLY:
            world.lake.expand(dataset, world.window(0, 24))
        found.append(world.files())
    assert found[0] == found[1]
