"""The client against the real app, through a real server; and against a wire that breaks."""

import asyncio
import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from nearline.errors import NearlineError
from nearline.records import Event, Item
from nearline.settings import settings
from serving import errors
from serving.client import AsyncRecommendationClient, RecommendationClient
from serving.schema import MOST_USERS, SessionEventIn

ITEM = {"item_id": "i1", "title": "One", "created_ts": "2026-01-01T00:00:00Z"}
README = Path(__file__).parents[2] / "README.md"
ITEMS = ("i0", "i1", "i2", "a/b c%?#")


@pytest.fixture
def base_url(world: Any, listening: Any) -> Iterator[str]:
    """The address of a real server of the world's app."""
    with listening(world.app()) as port:
        yield f"http://127.0.0.1:{port}"


def calls(world: Any) -> list[tuple[str, dict[str, Any]]]:
    event = Event(**world.event("e1", "i1"))
    return [
        ("health", {}),
        ("release", {}),
        ("recommendations", {"user_id": "ann/1?", "limit": 2}),
        ("similar", {"item_id": "a/b c%?#", "limit": 2}),
        ("recommendations_of", {"user_ids": ["eve", "bob/"], "exclude": ["i0"], "limit": 2}),
        ("trending", {"limit": 2, "attributes": {"color": ["red"]}, "exclude": ["i0"]}),
        ("search", {"words": "i1", "user_id": "eve", "categories": ["noir"], "fill": False}),
        ("releases", {"limit": 5}),
        ("put_items", {"items": [{"item_id": "i2"}, Item(**ITEM)]}),
        ("session", {"events": ["i1", SessionEventIn(item_id="i0")], "limit": 2}),
        ("send_events", {"events": [event, world.event("e2", "i2"), {"event_id": "e3"}]}),
        ("send_events", {"events": [event]}),
        ("user", {"user_id": "ann"}),
    ]


def test_what_the_readme_shows_works(world: Any, base_url: str, eventually: Any) -> None:
    world.catalogue({"item_id": "50"}, {"item_id": "181"})
    world.promote(("50", "181"))
    eventually(lambda: httpx.get(f"{base_url}/readyz").status_code == 200)
    event_ts = world.event("e1", "50")["event_ts"]
    text = README.read_text().replace("http://127.0.0.1:8900", base_url)
    text = text.replace("timeout_s=2", "timeout_s=60")
    text = text.replace("datetime.now(UTC)", f"datetime.fromisoformat('{event_ts}')")
    first, *others = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    shown: dict[str, Any] = {}
    exec(first, shown)
    assert {item.item_id for item in shown["answer"].items} == {"50", "181"}
    with RecommendationClient(base_url=base_url) as shown["client"]:
        for block in others:
            exec(block, shown)
    assert (shown["answer"].accepted, shown["refused"]) == (1, [])


async def ask_all(base_url: str, asked: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    async with AsyncRecommendationClient(base_url=base_url) as client:
        return [await getattr(client, name)(**arguments) for name, arguments in asked]


def without_ids(answers: list[Any]) -> list[dict[str, Any]]:
    ids = {"request_id": True, "lists": {"__all__": {"request_id"}}}
    return [answer.model_dump(exclude=ids) for answer in answers]


def test_both_clients_get_the_same_answers(world: Any, base_url: str, eventually: Any) -> None:
    world.catalogue(*({"item_id": item_id, "title": "One"} for item_id in ITEMS))
    world.promote(ITEMS)
    with RecommendationClient(base_url=base_url) as client:
        with pytest.raises(NearlineError):
            assert client.similar(item_id="nowhere") is None
        eventually(lambda: httpx.get(f"{base_url}/readyz").status_code == 200)
        answers = [getattr(client, name)(**args) for name, args in calls(world)]
    posted, again, known = answers[-3:]
    assert (posted.accepted, posted.refused, again.duplicate) == (2, 1, 1)
    assert len(answers[2].items) == 2
    assert [event.item_id for event in known.events] == ["i2", "i1"]
    awaited = asyncio.run(ask_all(base_url, calls(world)))
    assert without_ids(awaited[:-3]) == without_ids(answers[:-3])
    assert (awaited[-3].duplicate, awaited[-2].duplicate, awaited[-1]) == (2, 1, known)


def test_a_batch_is_the_lists_of_its_users(world: Any, base_url: str, eventually: Any) -> None:
    world.promote(ITEMS)
    users = ["ann", "nobody", "a/b c%?#"]
    with RecommendationClient(base_url=base_url) as client:
        eventually(lambda: httpx.get(f"{base_url}/readyz").status_code == 200)
        client.send_events(events=[world.event("e1", "i1")])
        batch = client.recommendations_of(user_ids=users, limit=2, exclude=["i0"])
        single = [
            client.recommendations(user_id=user, limit=2, exclude=["i0"]).items for user in users
        ]
        with pytest.raises(errors.RefusedRequest, match="user_ids"):
            client.recommendations_of(user_ids=["ann"] * (MOST_USERS + 1))
    assert [listed.user_id for listed in batch.lists] == users
    assert [listed.items for listed in batch.lists] == single
    ids = [listed.request_id for listed in batch.lists]
    assert ids == [f"{batch.request_id}.{place}" for place in range(len(users))]


def test_the_async_client_speaks_to_the_app_in_process(world: Any) -> None:
    world.promote(ITEMS)
    app = world.app()

    async def ask() -> str:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            async with AsyncRecommendationClient(
                base_url="http://nearline", transport=transport
            ) as client:
                return (await client.similar(item_id="i0")).source

    assert asyncio.run(ask()) == "neighbours"


def test_errors_tell_what_the_service_said(
    world: Any, base_url: str, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RecommendationClient(base_url=base_url) as client:
        with pytest.raises(errors.ServiceNotReady, match="nearline train"):
            client.health()
        world.promote(ITEMS)
        eventually(lambda: httpx.get(f"{base_url}/readyz").status_code == 200)
        with pytest.raises(errors.UnknownItem, match="'nowhere'") as caught:
            client.similar(item_id="nowhere")
        assert (caught.value.code, caught.value.status) == ("unknown_item", 404)
        assert caught.value.request_id
        with pytest.raises(errors.RefusedRequest, match="limit='0'"):
            client.trending(limit=0)


def test_the_key_of_the_settings_is_sent(
    world: Any, keyed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_API_KEY", keyed("read"))
    settings.cache_clear()
    world.promote(ITEMS)
    app = world.app()

    async def ask(api_key: str | None) -> str:
        transport = httpx.ASGITransport(app=app)
        client = AsyncRecommendationClient(
            base_url="http://nearline", transport=transport, api_key=api_key
        )
        async with app.router.lifespan_context(app), client:
            return (await client.trending()).source

    assert asyncio.run(ask(None)) == "popular"
    app = world.app()
    with pytest.raises(errors.Unauthorized):
        asyncio.run(ask("öpen"))


def wire(*outcomes: Any) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    """A wire on which each request in turn meets an outcome: an exception or a response."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        outcome = outcomes[min(len(seen), len(outcomes)) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return httpx.MockTransport(answer), seen


READY = httpx.Response(200, json={"status": "ready", "release": "r"})
BROKEN = httpx.ReadError("broken")
TIMEOUT = httpx.ReadTimeout("late")


@pytest.mark.parametrize("first", [BROKEN, TIMEOUT, httpx.Response(502), httpx.Response(504)])
def test_a_call_without_an_answer_is_tried_again(world: Any, first: Any) -> None:
    transport, seen = wire(first, READY)
    with RecommendationClient(base_url="http://x", transport=transport) as client:
        assert client.health().release == "r"
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("failure", "kind"),
    [(TIMEOUT, errors.ServiceTimeout), (httpx.Response(502), errors.Unreachable)],
)
def test_a_rollback_to_the_one_before_is_sent_once(
    world: Any, failure: Any, kind: type[Exception]
) -> None:
    moved = httpx.Response(200, json={"request_id": "r", "active": "v1", "before": None})
    transport, seen = wire(failure, failure, moved)
    with RecommendationClient(base_url="http://x", transport=transport) as client:
        with pytest.raises(kind):
            client.rollback()
        assert client.rollback(version="v1").active == "v1"
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("failure", "kind", "told"),
    [
        (httpx.ConnectError("refused"), errors.Unreachable, "nearline serve"),
        (TIMEOUT, errors.ServiceTimeout, "0.5 s"),
        (httpx.Response(502), errors.Unreachable, "502"),
    ],
)
def test_a_call_is_given_up_after_its_retries(
    world: Any, failure: Any, kind: type[Exception], told: str
) -> None:
    async def ask(transport: httpx.MockTransport) -> None:
        client = AsyncRecommendationClient(
            base_url="http://x", transport=transport, timeout_s=0.5, retries=1
        )
        await client.trending()

    transport, seen = wire(failure)
    with pytest.raises(kind, match=told):
        asyncio.run(ask(transport))
    assert len(seen) == 2


@pytest.mark.parametrize("answer", [httpx.Response(200, text="<html>"), httpx.Response(500)])
def test_what_is_not_nearline_is_told_apart(world: Any, answer: httpx.Response) -> None:
    transport, seen = wire(answer)
    with (
        RecommendationClient(base_url="http://x", transport=transport) as client,
        pytest.raises(errors.ServiceFailed, match="not Nearline"),
    ):
        client.health()
    assert len(seen) == 1


def test_an_error_of_the_service_is_not_retried(world: Any) -> None:
    body = {
        **{"type": "urn:nearline:problem:internal", "title": "The service failed", "status": 500},
        **{"detail": "a bug", "instance": "/readyz", "code": "internal", "request_id": "r"},
    }
    transport, seen = wire(httpx.Response(500, json=body))
    with (
        RecommendationClient(base_url="http://x", transport=transport) as client,
        pytest.raises(errors.ServiceFailed, match="a bug"),
    ):
        client.health()
    assert len(seen) == 1


def awaited(transport: Any = None, **how: Any) -> Callable[[str, dict[str, Any]], Any]:
    """Calls a method of the client that is awaited."""

    async def call(name: str, arguments: dict[str, Any]) -> Any:
        async with AsyncRecommendationClient(transport=transport, **how) as client:
            return await getattr(client, name)(**arguments)

    return lambda name, arguments: asyncio.run(call(name, arguments))


def waiting(transport: Any = None, **how: Any) -> Callable[[str, dict[str, Any]], Any]:
    """Calls a method of the client that waits."""

    def call(name: str, arguments: dict[str, Any]) -> Any:
        with RecommendationClient(transport=transport, **how) as client:
            return getattr(client, name)(**arguments)

    return call


BOTH = pytest.mark.parametrize("client", [waiting, awaited])


@BOTH
@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("send_events", {"events": [{"value": float("nan")}]}, "JSON"),
        ("send_events", {"events": [{"value": {1, 2}}]}, r"\{1, 2\} is nothing that JSON has"),
        ("send_events", {"events": "e1"}, "events='e1' is one text"),
        ("put_items", {"items": [5]}, "not iterable"),
        ("trending", {"exclude": "item-300"}, r"give a list, as in \['item-300'\]"),
        ("trending", {"categories": "noir"}, "categories='noir'"),
        ("trending", {"attributes": {"color": "red"}}, "color='red'"),
        ("recommendations_of", {"user_ids": "ann"}, "user_ids='ann'"),
        ("trending", {"attributes": ["color:red"]}, "give a dict of names and values"),
        ("trending", {"context": "page:home"}, "context='page:home' names nothing"),
        ("user", {"user_id": ".."}, r"'\.\.' is no id in an address"),
        ("user", {"user_id": ""}, "the id is empty: name a user"),
        ("recommendations", {"user_id": 80}, "the id 80 is no text"),
        ("similar", {"item_id": None}, "the id None is no text"),
        ("similar", {"item_id": "\ud800"}, "surrogates"),
        ("search", {"words": "\ud800"}, "surrogates"),
    ],
)
def test_what_cannot_be_sent_is_refused(
    world: Any, client: Any, name: str, arguments: dict[str, Any], told: str
) -> None:
    transport, seen = wire(READY)
    with pytest.raises(errors.RefusedRequest, match=told):
        client(transport, base_url="http://x")(name, arguments)
    assert not seen


@BOTH
@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"retries": -1}, "retries=-1: give how often to try again, 0 or more"),
        ({"retries": 1.5}, "retries=1.5"),
        ({"timeout_s": 0}, "timeout_s=0: give seconds, more than 0"),
        ({"timeout_s": float("nan")}, "timeout_s=nan"),
        ({"timeout_s": None}, "timeout_s=None"),
    ],
)
def test_a_client_that_could_not_ask_is_not_made(
    world: Any, client: Any, how: dict[str, Any], told: str
) -> None:
    with pytest.raises(errors.RefusedRequest, match=told):
        client(base_url="http://x", **how)("health", {})


def test_a_closed_client_says_so(world: Any) -> None:
    transport, seen = wire(READY)
    client = RecommendationClient(base_url="http://x", transport=transport)
    client.close()
    with pytest.raises(errors.RefusedRequest, match="the client is closed: make another"):
        client.health()

    async def ask() -> None:
        awaited = AsyncRecommendationClient(base_url="http://x", transport=transport)
        await awaited.close()
        await awaited.health()

    with pytest.raises(errors.RefusedRequest, match="the client is closed: make another"):
        asyncio.run(ask())
    assert not seen


def test_a_client_of_an_event_loop_that_is_over_says_so(world: Any, base_url: str) -> None:
    world.promote(ITEMS)
    client = AsyncRecommendationClient(base_url=base_url)
    with contextlib.suppress(errors.ServiceNotReady):
        asyncio.run(client.health())
    with pytest.raises(errors.RefusedRequest, match="Event loop is closed"):
        asyncio.run(client.health())


@BOTH
def test_an_address_of_ipv6_stands_in_brackets(
    world: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_SERVE_HOST", "::1")
    settings.cache_clear()
    transport, seen = wire(httpx.Response(200, json={"status": "ready", "release": "r"}))
    client(transport)("health", {})
    assert str(seen[0].url) == "http://[::1]:8900/readyz"


@BOTH
@pytest.mark.parametrize("base_url", ["http://x:nine", "ftp://x", "nowhere"])
def test_a_wrong_address_is_told_at_once(world: Any, client: Any, base_url: str) -> None:
    with pytest.raises(errors.RefusedRequest, match="cannot be sent"):
        client(base_url=base_url, retries=0)("health", {})


@BOTH
@pytest.mark.parametrize("key", ["nl_1\n", " nl_1", "nl\x00"])
def test_a_key_that_no_header_holds_is_told_and_not_shown(
    world: Any, client: Any, key: str
) -> None:
    with pytest.raises(errors.Unauthorized, match="the key has") as told:
        client(base_url="http://x", api_key=key)("health", {})
    assert "nl" not in str(told.value)


@BOTH
def test_a_time_in_an_event_is_sent_as_one(world: Any, client: Any) -> None:
    answer = {"request_id": "r", "accepted": 1, "duplicate": 0, "refused": 0, "events": []}
    transport, seen = wire(httpx.Response(200, json=answer))
    event = {"event_id": "e", "event_ts": datetime(2026, 1, 2, tzinfo=UTC)}
    client(transport, base_url="http://x")("send_events", {"events": [event]})
    [sent] = json.loads(seen[0].content)
    assert sent["event_ts"] == "2026-01-02T00:00:00+00:00"


@BOTH
def test_an_event_without_an_id_is_given_one_before_the_first_attempt(
    world: Any, client: Any
) -> None:
    answer = {"request_id": "r", "accepted": 1, "duplicate": 0, "refused": 0, "events": []}
    transport, seen = wire(BROKEN, httpx.Response(200, json=answer))
    events = [{"user_id": "ann"}, {"event_id": None}, {"event_id": "own"}]
    client(transport, base_url="http://x")("send_events", {"events": events})
    first, again = (json.loads(request.content) for request in seen)
    assert first == again
    *made, own = [event["event_id"] for event in first]
    assert [len(each) for each in made] == [32, 32]
    assert (len(set(made)), own) == (2, "own")
    assert events[0] == {"user_id": "ann"}


@BOTH
def test_one_event_that_is_refused_is_an_error(world: Any, client: Any, base_url: str) -> None:
    with RecommendationClient(base_url=base_url) as other:
        assert other.send_event(event=world.event("e1", "i1")).accepted == 1
    call = client(base_url=base_url)
    assert call("send_event", {"event": world.event("e1", "i1")}).duplicate == 1
    with pytest.raises(errors.RefusedRequest, match="event_type: 'dance' is unknown") as caught:
        call("send_event", {"event": world.event("e2", "i1", event_type="dance")})
    assert caught.value.code == "event_refused"


@BOTH
def test_a_damaged_answer_is_a_failure_of_the_service(world: Any, client: Any) -> None:
    damaged = httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Damaged())
    transport, seen = wire(damaged)
    with pytest.raises(errors.ServiceFailed, match="damaged"):
        client(transport, base_url="http://x")("health", {})
    assert len(seen) == 1


class Damaged(httpx.SyncByteStream, httpx.AsyncByteStream):
    """What is called gzip, and is none."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"no gzip"

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"no gzip"


@BOTH
def test_an_answer_that_trickles_is_given_up(world: Any, client: Any) -> None:
    def trickle(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while True:
                connection.sendall(b" ")
                time.sleep(0.02)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=trickle, args=[listener], daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(errors.ServiceTimeout):
            client(base_url=url, timeout_s=0.3, retries=0)("health", {})


def slow_down(seconds: str) -> httpx.Response:
    """What a service answers to a key that asks too often."""
    problem = {
        **{"type": "urn:nearline:problem:too_many_requests", "title": "Slow down", "status": 429},
        **{"detail": "too often", "instance": "/", "code": "too_many_requests", "request_id": "r"},
    }
    return httpx.Response(429, json=problem, headers={"retry-after": seconds})


def test_a_client_that_is_told_to_come_back_does(world: Any) -> None:
    transport, seen = wire(slow_down("0"), READY)
    with RecommendationClient(base_url="http://x", transport=transport) as client:
        assert client.health().release == "r"
    assert len(seen) == 2


@pytest.mark.parametrize(("seconds", "asked"), [("30", 1), ("0", 3)])
def test_a_client_that_would_wait_too_long_tells_it(world: Any, seconds: str, asked: int) -> None:
    transport, seen = wire(slow_down(seconds))
    with (
        RecommendationClient(base_url="http://x", transport=transport) as client,
        pytest.raises(errors.RateLimited, match="too often") as caught,
    ):
        client.health()
    assert (caught.value.retry_after_s, len(seen)) == (float(seconds), asked)


def test_the_tree_of_errors_is_as_drawn() -> None:
    for code, (status, _) in errors.KINDS.items():
        row = next(line for line in (errors.__doc__ or "").splitlines() if f"`{code}`" in line)
        kind = type(errors.error_for(code, "")).__name__
        assert f"| {status} |" in row
        assert row.endswith(f"| {kind} |")
