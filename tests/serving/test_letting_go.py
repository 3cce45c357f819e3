"""A worker lets go of live events that are online, and answers as one that has just started."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest
from fastapi.testclient import TestClient

from nearline.intake import close_hours, forgotten
from nearline.settings import settings
from nearline.windows import HOUR, Window, hour_floor
from serving.service import Service
from serving.users import Recent
from tests.serving.conftest import HOUR_END, LENGTH, World

ITEMS = tuple(f"i{n}" for n in range(12))
USERS = ("ann", "bob", "cid")
REFUSED = "i11"
"""The clean step refuses what is of this item: it is live, and never online."""

MINUTE = timedelta(minutes=1)


class Site:
    """A world with workers that accept events, and the steps that bring hours online."""

    def __init__(self, world: World, release: str) -> None:
        self.world, self.release = world, release
        self.accepted: list[tuple[datetime, dict[str, Any]]] = []
        self.online: dict[datetime, list[dict[str, Any]]] = {}
        self.over: set[datetime] = set()

    def accept(self, item: str, *, user: str = "ann", at: datetime | None = None) -> None:
        """Any worker accepts that a user played an item, now or `at` an earlier time."""
        told = {"user_id": user, "event_ts": (at or self.world.now).isoformat()}
        event = self.world.event(f"e{len(self.accepted)}", item, **told)
        journal = self.world.journal()
        journal.append([event])
        journal.close()
        self.accepted.append((self.world.now, event))

    def materialize(self, *hours: datetime) -> None:
        """Close hours and write the store, with what is known of them by now, as the steps do."""
        for hour in hours:
            close_hours(Window.of_hour(hour), clock=lambda: self.world.now)
            self.online[hour] = [event for at, event in self.accepted if hour_floor(at) == hour]
            self.over |= {hour} if hour + HOUR <= self.world.now else set()
        there = [event for events in self.online.values() for event in events]
        kept = [event for event in there if event["item_id"] != REFUSED]
        for user in {event["user_id"] for event in kept}:
            self._put(user, [event for event in kept if event["user_id"] == user])

    def finish(self, *hours: datetime) -> None:
        """Tell that sequences of these hours are online."""
        for hour in hours:
            self.world.lake.mark_complete("online/user_sequence", Window.of_hour(hour), rows=1)

    def bring_online(self, *hours: datetime) -> None:
        self.materialize(*hours)
        self.finish(*hours)

    def covered(self, hour: datetime) -> bool:
        """Whether the ledger tells that an hour is online."""
        return any(w.contains(hour) for w in self.world.lake.covered("online/user_sequence"))

    def newest(self, user: str) -> list[str]:
        """The items of a user's newest events that were ever accepted, newest first."""
        theirs = [event for _, event in self.accepted if event["user_id"] == user]
        theirs.sort(key=lambda event: datetime.fromisoformat(event["event_ts"]), reverse=True)
        return [event["item_id"] for event in theirs[:LENGTH]]

    def _put(self, user: str, events: list[dict[str, Any]]) -> None:
        moments = [(datetime.fromisoformat(event["event_ts"]), event) for event in events]
        moments.sort(key=lambda found: found[0])
        newest = [(event["item_id"], event["event_type"], at) for at, event in moments[-LENGTH:]]
        taken = {event["item_id"] for event in events}
        self.world.store.put_sequence(user, newest, taken=sorted(taken))
        self.world.store.users[user]["user_sequence__values"] = [1.0] * len(newest)


@pytest.fixture
def site(world: World, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("NEARLINE_SEQUENCE_LENGTH", str(LENGTH))
    settings.cache_clear()
    world.catalogue(*({"item_id": item} for item in ITEMS))
    world.store.trending = ([*ITEMS], [1.0] * len(ITEMS), HOUR_END)
    return Site(world, world.promote(ITEMS))


@contextmanager
def running(world: World) -> Iterator[tuple[Service, TestClient]]:
    service = world.service()
    with world.client(service) as client:
        yield service, client


def live(service: Service, user: str = "ann") -> list[str]:
    return [event.item_id for event in service.live.of(user).events]


def answers(client: TestClient, *, count: bool) -> list[bytes]:
    """What is told and recommended of each user, without the request's own id.

    Without `count` it does not matter how many of the events are live.
    """
    paths = [f"/v1/users/{user}" for user in USERS]
    found = [client.get(path + rest) for path in paths for rest in ("", "/recommendations")]
    told = [each.content.replace(each.headers["x-request-id"].encode(), b"") for each in found]
    return told if count else [re.sub(rb'"live_events":\d+', b"", each) for each in told]


def told(client: TestClient, user: str) -> list[str]:
    answer = client.get(f"/v1/users/{user}").json()
    return [event["item_id"] for event in answer.get("events", [])]


def something_happens(site: Site, chance: Random, refused: list[str]) -> None:
    """Half an hour goes by: events, some of them late, and steps, some of them left out.

    A start reads hours that became stale after they went, and so what was refused of them: where
    that is to be the same, only the newest hour becomes stale.
    """
    world = site.world
    for _ in range(chance.randrange(6)):
        world.now += chance.random() * 4 * MINUTE
        late = chance.random() ** 4 * 5 * HOUR
        item = chance.choice([*ITEMS[:-1], *refused])
        site.accept(item, user=chance.choice(USERS), at=world.now - late)
    world.now = max(world.now, world.now.replace(minute=0) + chance.choice([29, 59]) * MINUTE)
    early = chance.random() < 0.2  # the running hour too
    end = max(hour_floor(world.now), HOUR_END + HOUR) + early * HOUR
    hours = list(Window(HOUR_END, min(end, hour_floor(world.now) + HOUR)).hours())
    due = [hour for hour in hours if hour not in site.over or not site.covered(hour)]
    match chance.randrange(6):
        case 0:  # an hour is left out
            left_out = next((hour for hour in due if hour not in site.online), None)
            site.bring_online(*(hour for hour in due if hour != left_out))
        case 1:  # an hour is to be computed again
            again = chance.choice(hours[-1:] if refused else hours)
            world.lake.ledger("online/user_sequence").make_stale(Window.of_hour(again))
        case 2:  # killed between the store and the ledger
            site.materialize(*due)
        case 3 | 4:
            site.bring_online(*due)
    world.now += MINUTE


@pytest.mark.parametrize("refused", [[], [REFUSED]])
@pytest.mark.parametrize("seed", range(3))
def test_one_that_has_run_all_along_answers_as_one_just_started(
    site: Site, seed: int, refused: list[str]
) -> None:
    chance, world = Random(seed), site.world
    let_go = 0
    with running(world) as (service, client):
        for _ in range(14):
            something_happens(site, chance, refused)
            before = sum(len(live(service, user)) for user in USERS)
            service.catch_up(world.now)
            service.let_go(world.now)
            let_go += before > sum(len(live(service, user)) for user in USERS)
            with running(world) as (_, fresh):
                same = [answers(each, count=bool(refused)) for each in (client, fresh)]
                assert same[0] == same[1]
            if not refused:
                assert [told(client, user) for user in USERS] == [*map(site.newest, USERS)]
    assert let_go


def test_an_hour_stays_until_it_is_online_and_over(site: Site) -> None:
    world, hour = site.world, HOUR_END
    with running(world) as (service, _):
        site.accept("i1")
        world.now = hour + 2 * HOUR + MINUTE
        site.accept("i2")

        def kept() -> list[str]:
            service.catch_up(world.now)
            service.let_go(world.now)
            return live(service)

        assert kept() == ["i1", "i2"]
        site.materialize(hour)
        assert kept() == ["i1", "i2"]
        site.finish(hour)
        world.lake.ledger("online/user_sequence").make_stale(Window.of_hour(hour))
        assert kept() == ["i1", "i2"]
        site.finish(hour)
        assert kept() == ["i2"]


@pytest.mark.parametrize("broken", [{"error": OSError("gone")}, {"trending": None}])
def test_nothing_goes_while_the_store_cannot_be_read(site: Site, broken: dict[str, Any]) -> None:
    world = site.world
    with running(world) as (service, client):
        site.accept("i1")
        world.now += 2 * HOUR
        site.bring_online(HOUR_END)
        vars(world.store).update(broken)
        service.catch_up(world.now)
        service._let_go(world.now)
        assert live(service) == ["i1"]
        assert told(client, "ann") == ["i1"]


def test_a_running_worker_does_it_by_itself(site: Site, eventually: Callable[..., None]) -> None:
    world = site.world
    with running(world) as (service, client):
        site.accept("i1")
        assert told(client, "ann") == ["i1"]
        world.now += 2 * HOUR
        site.bring_online(HOUR_END)

        def gone() -> bool:
            world.now += MINUTE
            return live(service) == []

        eventually(gone)
        assert told(client, "ann") == ["i1"]


def test_what_goes_while_the_store_is_read_is_not_missed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store gives what it had before; then the hour comes online and goes."""
    world = site.world
    with running(world) as (service, client):
        site.accept("i1")
        service.catch_up(world.now)
        read = world.store.read

        def slow(features: list[str], keys: list[dict[str, str]]) -> dict[str, list[Any]]:
            found = read(features, keys)
            service.live.let_go(HOUR_END + HOUR, but=lambda _: False)
            return found

        monkeypatch.setattr(world.store, "read", slow)
        assert told(client, "ann") == ["i1"]
        assert live(service) == []


def test_a_kept_list_is_made_anew_once_events_are_let_go_of(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_KEPT_SECONDS", "60")
    settings.cache_clear()
    world, path = site.world, "/v1/users/ann/recommendations"
    with running(world) as (service, client):
        site.accept("i1")
        world.now = HOUR_END + 2 * HOUR
        site.bring_online(HOUR_END)
        lists = [client.get(path).json()["items"]]
        service.let_go(world.now)
        read = len(world.store.asked)
        lists += [client.get(path).json()["items"] for _ in range(2)]
    assert len(world.store.asked) == read + 1
    assert lists[0] == lists[1] == lists[2]


def test_a_vector_of_before_an_event_that_went_is_not_used(site: Site) -> None:
    """The event came late, so that the history alone would not tell."""
    world, release = site.world, site.release
    vector = world.models[release].items[1]
    with running(world) as (service, client):
        site.accept("i1", at=HOUR_END - HOUR)
        service.catch_up(world.now)
        world.now = HOUR_END + 2 * HOUR
        site.bring_online(HOUR_END)
        service.let_go(world.now)
        assert live(service) == []
        world.store.put_vector("ann", release, vector, HOUR_END)
        assert client.get("/v1/users/ann").json()["vector"]["used"] is False
        world.store.put_vector("ann", release, vector, HOUR_END + HOUR)
        assert client.get("/v1/users/ann").json()["vector"]["used"] is True


def test_what_a_forgotten_user_did_since_stays(site: Site) -> None:
    """The store is not read of such a user, and then rid of what it holds."""
    world = site.world
    with running(world) as (service, client):
        site.accept("i1")
        site.accept("i2", user="bob")
        world.now += MINUTE
        client.delete("/v1/users/ann")
        world.now += MINUTE
        site.accept("i3")
        service.catch_up(world.now)
        world.now = HOUR_END + 2 * HOUR
        site.bring_online(HOUR_END)
        service.let_go(world.now)
        assert (live(service), live(service, "bob")) == (["i3"], [])
        assert told(client, "ann") == ["i3"]
        del world.store.users["ann"]
        [wish] = forgotten.pending()
        forgotten.finish(wish)
        assert told(client, "ann") == ["i3"]
        client.delete("/v1/users/ann")
        service.catch_up(world.now)
        assert service.live.of("ann") == Recent()


def test_events_are_gone_after_their_hours(site: Site) -> None:
    """What is not online for so long is left out by a start too, of busy users as well."""
    world = site.world
    with running(world) as (service, _):
        site.accept("i1")
        service.catch_up(world.now)
        world.now += 48 * HOUR
        site.accept("i2")
        service.catch_up(world.now)
        assert live(service) == ["i1", "i2"]
        world.now += HOUR
        service.catch_up(world.now)
        assert live(service) == ["i2"]
