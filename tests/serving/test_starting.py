"""What a worker reads when it starts: what the online store has not."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from nearline.intake import close_hours
from nearline.windows import HOUR, Window
from serving.service import Service
from tests.serving.conftest import HOUR_END, World

ITEMS = tuple(f"i{n}" for n in range(12))
ANN = "/v1/users/ann/recommendations"


@pytest.fixture
def release(world: World) -> str:
    world.catalogue(*({"item_id": item} for item in ITEMS))
    world.store.trending = ([*ITEMS], [1.0] * len(ITEMS), HOUR_END)
    return world.promote(ITEMS)


def accept(world: World, *at: datetime, **changes: Any) -> None:
    """Accept an event of each time, which is its id too, and leave the clock there."""
    journal = world.journal()
    for world.now in at:
        told = {"event_ts": world.now.isoformat()} | changes
        journal.append([world.event(f"{world.now:%H:%M}", "i1", **told)])
    journal.close()


def bring_online(world: World, window: Window) -> None:
    close_hours(window, clock=lambda: world.now)
    world.lake.mark_complete("online/user_sequence", window, rows=1)


def begun(world: World, at: datetime) -> tuple[Service, list[str]]:
    """A service that started then, and the live events of ann that it has."""
    world.now = at
    service = world.service()
    service.start(lambda: world.now)
    service.close()
    return service, [event.event_id for event in service.live.of("ann").events]


def test_what_the_online_store_has_is_left_there(world: World, release: str) -> None:
    accept(world, *(HOUR_END - n * HOUR for n in (5, 4, 3, 2, 1, 0)))
    bring_online(world, Window(HOUR_END - 5 * HOUR, HOUR_END - 2 * HOUR))
    service, live = begun(world, HOUR_END + HOUR / 2)
    assert live == ["10:00", "11:00", "12:00"]
    assert service.live.since == HOUR_END - 2 * HOUR


def test_an_hour_that_was_left_out_is_read_and_all_after_it(world: World, release: str) -> None:
    accept(world, *(HOUR_END - n * HOUR for n in (5, 4, 3)))
    world.now = HOUR_END
    bring_online(world, Window(HOUR_END - 5 * HOUR, HOUR_END - 4 * HOUR))
    bring_online(world, Window(HOUR_END - 3 * HOUR, HOUR_END))
    assert begun(world, HOUR_END)[1] == ["08:00", "09:00"]


def test_hours_that_are_computed_again_are_read(world: World, release: str) -> None:
    accept(world, *(HOUR_END - n * HOUR for n in (5, 4, 3)))
    world.now = HOUR_END
    bring_online(world, Window(HOUR_END - 5 * HOUR, HOUR_END))
    world.lake.ledger("online/user_sequence").make_stale(Window.of_hour(HOUR_END - 4 * HOUR))
    assert begun(world, HOUR_END)[1] == ["08:00", "09:00"]


def test_an_hour_that_was_closed_early_is_read(world: World, release: str) -> None:
    hour = HOUR_END - 3 * HOUR
    accept(world, hour + HOUR / 4)
    bring_online(world, Window.of_hour(hour))
    accept(world, hour + HOUR / 2)
    assert begun(world, HOUR_END)[1] == ["09:15", "09:30"]


@pytest.mark.parametrize("broken", [{"error": OSError("gone")}, {"trending": None}])
def test_without_the_online_store_all_live_hours_are_read(
    world: World, release: str, broken: dict[str, Any]
) -> None:
    accept(world, HOUR_END - 5 * HOUR)
    world.now = HOUR_END
    bring_online(world, Window(HOUR_END - 5 * HOUR, HOUR_END))
    vars(world.store).update(broken)
    assert begun(world, HOUR_END)[1] == ["07:00"]


def test_a_vector_of_before_the_beginning_may_lack_late_events(world: World, release: str) -> None:
    """Another worker knew that one came late; this one sees it in the stored sequence alone."""
    world.store.put_sequence("ann", [("i1", "play", HOUR_END - 9 * HOUR)])
    accept(world, HOUR_END - 4 * HOUR, event_ts=(HOUR_END - 9 * HOUR).isoformat())
    world.now = HOUR_END
    bring_online(world, Window(HOUR_END - 4 * HOUR, HOUR_END - 3 * HOUR))
    vector = world.models[release].items[1]
    world.store.put_vector("ann", release, vector, HOUR_END - 4 * HOUR)
    with world.client() as client:
        assert client.get(ANN).json()["source"] == "live"
        world.store.put_vector("ann", release, vector, HOUR_END - HOUR)
        assert client.get(ANN).json()["source"] == "stored"


def test_a_forgotten_user_is_not_brought_back(world: World, release: str) -> None:
    accept(world, HOUR_END - HOUR)
    world.now = HOUR_END
    with world.client() as client:
        assert client.delete("/v1/users/ann").status_code == 202
    assert begun(world, HOUR_END + timedelta(minutes=1))[1] == []
