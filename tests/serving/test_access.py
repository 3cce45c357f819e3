"""Who is let in, as what, and how often; over HTTP with the real app, and by hand."""

import resource
from collections.abc import Callable
from ctypes import c_bool
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from nearline.errors import ConfigError
from nearline.settings import settings
from serving.access import Access, Caller, needed_role
from serving.errors import Forbidden, RateLimited, RefusedRequest, Unauthorized
from serving.keys import KeyFile, Role
from serving.limits import BURST_S, RateLimits
from serving.workers import check_exposure

ITEMS = ("i0", "i1")


def bearer(key: str) -> dict[str, bytes]:
    return {"authorization": f"Bearer {key}".encode()}


class Clock:
    """A monotonic clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(home: Path, clock: Clock) -> Callable[..., Access]:
    """Opens access to the keys of the home; each is another worker."""

    def make(*, rate: float = 0, **how: Any) -> Access:
        limits = RateLimits(home / "limits", clock=clock)
        return Access(KeyFile.open(), limits, rate=rate, clock=clock, **how)

    return make


def admitted(access: Access, key: str, path: str = "/v1/trending", method: str = "GET") -> str:
    found = caller(access, key, path, method)
    return found.name if found else "anyone"


def caller(
    access: Access, key: str, path: str = "/v1/recommendations", method: str = "POST"
) -> Caller | None:
    return access.admit(method, path, f"Bearer {key}".encode())


def test_many_names_are_counted_with_few_open_files(tmp_path: Path, clock: Clock) -> None:
    limits = RateLimits(tmp_path / "limits", clock=clock)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    there = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (there + 50, hard))
    try:
        waits = [limits.wait(f"k{n}", 1) or limits.wait(f"k{n}", 0.1) for n in range(100)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert all(waits)


def test_a_refusal_is_counted_where_it_was_to_go(world: Any, keyed: Callable[..., str]) -> None:
    key = bearer(keyed("read"))
    with world.client() as client:
        client.get("/v1/users/ann/recommendations")
        client.delete("/v1/users/ann", headers=key)
        figures = client.get("/metrics", headers=key).text
    path = "/v1/users/{user_id}"
    for endpoint, status in ((f"{path}/recommendations", 401), (path, 403)):
        count = f'nearline_requests_total{{endpoint="{endpoint}",status="{status}"}} 1.0'
        assert count in figures


# Roles


def test_every_address_needs_its_role(world: Any) -> None:
    needed = {
        (method, route.path): needed_role(method, route.path)
        for route in world.app().routes
        if isinstance(route, Route)
        for method in route.methods or ()
    }
    assert needed == {
        ("GET", "/healthz"): None,
        ("HEAD", "/healthz"): None,
        ("GET", "/readyz"): None,
        ("HEAD", "/readyz"): None,
        ("GET", "/metrics"): Role.READ,
        ("GET", "/openapi.json"): Role.READ,
        ("HEAD", "/openapi.json"): Role.READ,
        ("GET", "/v1/items/{item_id:segment}/similar"): Role.READ,
        ("GET", "/v1/release"): Role.READ,
        ("GET", "/v1/releases"): Role.READ,
        ("GET", "/v1/search"): Role.READ,
        ("GET", "/v1/trending"): Role.READ,
        ("GET", "/v1/users/{user_id:segment}"): Role.READ,
        ("GET", "/v1/users/{user_id:segment}/recommendations"): Role.READ,
        ("POST", "/v1/recommendations"): Role.READ,
        ("POST", "/v1/sessions/recommendations"): Role.READ,
        ("POST", "/v1/events"): Role.WRITE,
        ("PUT", "/v1/items"): Role.WRITE,
        ("POST", "/v1/admin/releases/promote"): Role.ADMIN,
        ("POST", "/v1/admin/releases/rollback"): Role.ADMIN,
        ("DELETE", "/v1/users/{user_id:segment}"): Role.ADMIN,
    }


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "/v1/users/ann"), ("PATCH", "/v1/x"), ("GET", "/v1/admin/x")]
)
def test_what_is_not_read_or_written_needs_an_admin(method: str, path: str) -> None:
    assert needed_role(method, path) == Role.ADMIN


def test_a_key_opens_what_its_role_may(world: Any, keyed: Callable[..., str]) -> None:
    world.promote(ITEMS)
    held = {role: keyed(role) for role in Role}
    event = world.event("e1", "i1")

    def statuses(key: str) -> list[int]:
        headers = bearer(key)
        answers = [
            client.get("/v1/trending", headers=headers),
            client.post("/v1/events", json=event, headers=headers),
            client.request("PATCH", "/v1/trending", headers=headers),
        ]
        return [answer.status_code for answer in answers]

    with world.client() as client:
        found = {role: statuses(key) for role, key in held.items()}
        refused = client.post("/v1/events", json=event, headers=bearer(held[Role.READ]))
    assert found == {
        Role.READ: [200, 403, 403],
        Role.WRITE: [200, 200, 403],
        Role.ADMIN: [200, 200, 405],
    }
    assert refused.json()["code"] == "forbidden"
    assert "'shop' has the role read" in refused.json()["detail"]


def test_without_a_known_key_only_health_is_told(world: Any, keyed: Callable[..., str]) -> None:
    world.promote(ITEMS)
    key = keyed("admin")
    wrong = [
        {},
        bearer(key[:-1]),
        bearer(key + "x"),
        bearer("öpen"),
        bearer(""),
        {"authorization": key.encode()},
        {"authorization": f"Basic {key}".encode()},
    ]
    with world.client() as client:
        for path in ("/v1/trending", "/metrics", "/openapi.json", "/nothing"):
            for headers in wrong:
                refused = client.get(path, headers=headers)
                assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
                assert refused.headers["www-authenticate"] == "Bearer"
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 200
        lower = {"authorization": f"bearer {key}".encode()}
        assert client.get("/v1/trending", headers=lower).status_code == 200


def test_the_description_tells_what_each_operation_needs(world: Any) -> None:
    with world.client() as client:
        told = client.get("/openapi.json").json()
    assert told["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    assert told["paths"]["/v1/events"]["post"]["security"] == [{"key": ["write"]}, {}]
    assert told["paths"]["/healthz"]["get"]["security"] == []


# Rotation


def test_keys_are_rotated_while_the_service_runs(
    opened: Callable[..., Access], keyed: Callable[..., str], clock: Clock
) -> None:
    access = opened()
    assert admitted(access, "none") == "anyone"
    old = keyed("read")
    clock.now += 1.1
    assert admitted(access, old) == "shop"
    new = keyed("read", name="shop, anew")
    clock.now += 1.1
    assert (admitted(access, old), admitted(access, new)) == ("shop", "shop, anew")
    for key in KeyFile.open().read():
        KeyFile.open().revoke(key.key_id)
    clock.now += 1.1
    for key in (old, new):
        with pytest.raises(Unauthorized):
            admitted(access, key)


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_text("{")])
def test_a_file_that_is_lost_opens_nothing(
    opened: Callable[..., Access],
    keyed: Callable[..., str],
    clock: Clock,
    spoil: Callable[[Path], Any],
) -> None:
    key, access = keyed("read"), opened()
    spoil(settings().keys)
    clock.now += 1.1
    assert admitted(access, key) == "shop"
    with pytest.raises(Unauthorized):
        admitted(access, "none")


def test_a_worker_that_starts_without_the_file_that_others_knew_lets_nobody_in(
    opened: Callable[..., Access], keyed: Callable[..., str], clock: Clock
) -> None:
    shared, file = c_bool(False), settings().keys
    first = opened(guarded=shared)
    assert admitted(first, "none") == "anyone"
    key = keyed("read")
    clock.now += 1.1
    assert admitted(first, key) == "shop"
    away = file.rename(file.with_name("away"))
    second = opened(guarded=shared)
    for given in ("none", key):
        with pytest.raises(Unauthorized):
            admitted(second, given)
    assert admitted(second, "none", "/healthz") == "anyone"
    away.rename(file)
    clock.now += 1.1
    assert admitted(second, key) == "shop"


def test_a_server_beyond_loopback_lets_nobody_in_without_the_file(
    opened: Callable[..., Access],
) -> None:
    with pytest.raises(Unauthorized):
        admitted(opened(guarded=c_bool(True)), "none")


def test_a_service_does_not_start_with_keys_that_it_cannot_read(
    opened: Callable[..., Access],
) -> None:
    settings().keys.write_text("{")
    with pytest.raises(ConfigError):
        opened()


# Rates


def let_in(access: Access, key: str, count: int) -> int:
    """How many of `count` requests are let in."""
    found = 0
    for _ in range(count):
        try:
            admitted(access, key)
        except RateLimited:
            continue
        found += 1
    return found


def test_a_rate_is_counted_by_all_workers_together(
    opened: Callable[..., Access], keyed: Callable[..., str], clock: Clock
) -> None:
    key, other = keyed("read", rate=5), keyed("read", rate=0.5)
    first, second = opened(), opened()
    assert let_in(first, key, 4) + let_in(second, key, 20) == 5 * BURST_S
    clock.now += 1
    assert let_in(second, key, 3) + let_in(first, key, 20) == 5
    clock.now += 1000
    assert let_in(first, key, 30) == 5 * BURST_S
    assert let_in(first, other, 9) == 1
    clock.now += 1
    assert let_in(second, other, 9) == 0
    clock.now += 1
    assert let_in(second, other, 9) == 1


def test_a_key_without_a_rate_has_that_of_the_settings(
    opened: Callable[..., Access], keyed: Callable[..., str]
) -> None:
    key, own = keyed("read"), keyed("read", rate=1)
    assert let_in(opened(rate=3), key, 50) == 3 * BURST_S
    assert let_in(opened(rate=3), own, 50) == BURST_S
    assert let_in(opened(), key, 50) == 50


def test_a_request_for_several_lists_counts_as_many(
    opened: Callable[..., Access], keyed: Callable[..., str]
) -> None:
    key, first, second = keyed("read", rate=5), opened(), opened()
    first.count_lists(caller(first, key), 8)
    second.count_lists(caller(second, key), 1)
    assert let_in(second, key, 9) == 1


@pytest.mark.parametrize("rate", [5, 0.5])
def test_a_batch_beyond_the_bucket_is_let_in_once_and_waited_for_afterwards(
    opened: Callable[..., Access], keyed: Callable[..., str], clock: Clock, rate: float
) -> None:
    access = opened()
    idle, other = (keyed("read", rate=rate) for _ in range(2))
    assert let_in(access, idle, 1) == 1
    clock.now += BURST_S + 1 / rate
    batch = caller(access, idle)
    access.count_lists(batch, 100)
    with pytest.raises(RateLimited) as refused:
        access.count_lists(batch, 2)
    assert let_in(access, idle, 1) == 0
    assert let_in(access, other, 1) == 1
    # What is lacking of the bucket, and the request that is then let in.
    wait_s = (100 + 1) / rate - max(BURST_S, 1 / rate)
    assert refused.value.retry_after_s == pytest.approx(wait_s, abs=1e-3)
    clock.now += wait_s - 0.1 / rate
    assert let_in(access, idle, 1) == 0
    clock.now += 0.1 / rate + 0.001
    assert let_in(access, idle, 2) == 1


def test_a_key_without_a_rate_asks_for_as_many_lists_as_it_likes(
    opened: Callable[..., Access], keyed: Callable[..., str]
) -> None:
    access, key = opened(), keyed("read")
    for asks in (caller(access, key), None):
        access.count_lists(asks, 100)
    assert let_in(access, key, 50) == 50


def seconds_to_wait(refused: httpx.Response) -> int:
    """What a caller is told who asked too often."""
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
    return int(refused.headers["retry-after"])


def test_a_batch_over_http_is_waited_for_by_its_lists(
    world: Any, keyed: Callable[..., str]
) -> None:
    headers = bearer(keyed("read", rate=0.001))
    world.promote(ITEMS)
    with world.client() as client:
        body = {"user_ids": ["ann", "bob", "cy"]}
        assert client.post("/v1/recommendations", json=body, headers=headers).status_code == 200
        refused = client.get("/v1/trending", headers=headers)
    assert 2900 < seconds_to_wait(refused) <= 3000


def test_a_batch_that_nothing_can_answer_takes_one_request(
    world: Any, keyed: Callable[..., str]
) -> None:
    headers = bearer(keyed("read", rate=1))
    with world.client() as client:
        body = {"user_ids": [f"u{n}" for n in range(100)]}
        asked = [
            client.post("/v1/recommendations", json=body, headers=headers).status_code
            for _ in range(2)
        ]
    assert asked == [503, 503]


def test_a_slow_key_does_not_wait_for_a_clock_that_began_anew(
    opened: Callable[..., Access], keyed: Callable[..., str], clock: Clock
) -> None:
    key, clock.now = keyed("read", rate=0.02), 3000.0
    assert let_in(opened(), key, 2) == 1
    clock.now = 20.0
    assert let_in(opened(), key, 2) == 1


def test_a_machine_that_was_started_anew_counts_anew(
    opened: Callable[..., Access], keyed: Callable[..., str], clock: Clock
) -> None:
    key = keyed("read", rate=5)
    assert let_in(opened(), key, 50) == 5 * BURST_S
    assert let_in(opened(), key, 50) == 0
    clock.now = 3.0
    assert let_in(opened(), key, 50) == 5 * BURST_S


def test_who_asks_too_often_is_told_when_to_ask_again(
    world: Any, keyed: Callable[..., str]
) -> None:
    headers = bearer(keyed("read", rate=0.001))
    world.promote(ITEMS)
    with world.client() as client:
        assert client.get("/v1/trending", headers=headers).status_code == 200
        refused = client.get("/v1/trending", headers=headers)
    assert 900 < seconds_to_wait(refused) <= 1000


def test_a_key_may_not_ask_too_often_for_what_it_may_not(
    opened: Callable[..., Access], keyed: Callable[..., str]
) -> None:
    key, access = keyed("read", rate=0.5), opened()
    with pytest.raises(Forbidden):
        admitted(access, key, "/v1/events", "POST")
    with pytest.raises(RateLimited):
        admitted(access, key, "/v1/events", "POST")


def test_a_disk_that_cannot_count_lets_in(
    opened: Callable[..., Access], keyed: Callable[..., str], home: Path
) -> None:
    key = keyed("read", rate=0.5)
    (home / "limits").write_text("no folder")
    assert let_in(opened(), key, 3) == 3


# Listening


OWN_HOSTS = [
    "",
    "localhost",
    "LOCALHOST:8900",
    "127.0.0.1:8900",
    "127.8.0.1",
    "[::1]",
    "[::1]:8900",
]
FOREIGN_HOSTS = [
    *("evil.example", "evil.example:8900", "localhost.evil.example", "10.0.0.1", "0.0.0.0:8900"),
    *("127.0.0.1.evil.example", "[fe80::1]:8900", "[::1", "::1", "localhost:x@evil.example"),
]


@pytest.mark.parametrize("host", OWN_HOSTS)
def test_without_keys_this_machine_may_ask_itself(opened: Callable[..., Access], host: str) -> None:
    assert opened(loopback=True).admit("DELETE", "/v1/users/ann", b"", host) is None


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_without_keys_a_page_whose_name_leads_here_is_refused(
    opened: Callable[..., Access], keyed: Callable[..., str], clock: Clock, host: str
) -> None:
    access = opened(loopback=True)
    with pytest.raises(RefusedRequest, match="nearline keys add") as refusal:
        access.admit("GET", "/v1/trending", b"", host)
    assert (refusal.value.code, refusal.value.status) == ("foreign_host", 421)
    assert access.admit("GET", "/healthz", b"", host) is None
    key = keyed("read")
    clock.now += 1.1
    assert access.admit("GET", "/v1/trending", f"Bearer {key}".encode(), host) is not None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    check_exposure(host, [])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
def test_beyond_loopback_a_key_is_needed(home: Path, keyed: Callable[..., str], host: str) -> None:
    with pytest.raises(ConfigError, match="nearline keys add"):
        check_exposure(host, KeyFile.open().read())
    keyed("read")
    check_exposure(host, KeyFile.open().read())
