"""Clients that mean harm, or are broken, are answered, or refused by a problem; never by a 500."""

import asyncio
import json
import logging
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from uvicorn.server import ServerState

from nearline.settings import settings
from serving.protocol import GuardedProtocol
from serving.workers import server_config

ITEMS = ("i0", "i1", "i2", "i3")
JSON = {"content-type": "application/json"}

IDS = [
    "../../../etc/passwd",
    "..",
    "%2e%2e%2f",
    "a\0b",
    "a\r\nSet-Cookie: x=1",
    "'; DROP TABLE items; --",
    '" OR 1=1',
    "{{7*7}}",
    "${jndi:ldap://x}",
    "[bold]x[/bold]",
    "\u202egnp.exe",
    "👩‍👩‍👧",
    "é" * 256,
    "x" * 257,
    "x" * 10_000,
    "*",
    " ",
]


@pytest.fixture
def client(world: Any) -> Iterator[Any]:
    world.catalogue(*({"item_id": i, "categories": ["c"]} for i in ITEMS))
    world.promote(ITEMS)
    with world.client() as client:
        yield client


def assert_answered_or_refused(response: Any) -> None:
    """An answer of ours; what is refused is a problem."""
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["status"] == response.status_code


def test_no_id_breaks_anything(world: Any, client: Any) -> None:
    for text in IDS:
        for response in asked_with_id(world, client, text):
            assert_answered_or_refused(response)
    assert client.get("/v1/trending").status_code == 200


def asked_with_id(world: Any, client: Any, text: str) -> Iterator[Any]:
    """Every operation, with a text wherever one may be."""
    path, filters = quote(text, safe=""), {"category": text, "attribute": f"{text}:{text}"}
    shown = {"exclude": text, "surface": text}
    yield client.get(f"/v1/users/{path}/recommendations", params=shown)
    yield client.get(f"/v1/users/{path}")
    yield client.get(f"/v1/items/{path}/similar")
    yield client.get("/v1/search", params={"q": text, "user_id": text})
    yield client.get("/v1/trending", params=filters)
    yield client.post("/v1/sessions/recommendations", json={"events": [{"item_id": text}]})
    yield client.post("/v1/events", json=world.event(text, text, user_id=text, query=text))
    item = {"item_id": text, "title": text, "created_ts": "2026-01-01", "categories": [text]}
    yield client.put("/v1/items", json=item)
    yield client.delete(f"/v1/trending/{path}")


LONE = "\ud800"
"""Half of a character: legal in JSON, but not in UTF-8."""


def test_half_a_character_is_refused(world: Any, client: Any) -> None:
    bodies = {
        ("POST", "/v1/events"): [world.event(LONE, "i1"), world.event("e", LONE, query=LONE)],
        ("PUT", "/v1/items"): [{"item_id": LONE, "title": LONE, "created_ts": LONE, LONE: LONE}],
        ("POST", "/v1/sessions/recommendations"): {"events": [{"item_id": LONE, LONE: LONE}]},
    }
    for (method, path), body in bodies.items():
        content = json.dumps(body).encode()
        response = client.request(method, path, content=content, headers=JSON)
        assert_answered_or_refused(response)
        assert response.status_code in (207, 422)


NUMBERS = ["NaN", "Infinity", "1e999", "9" * 400, "-0", "1e-999", "9" * 5000, '"1"', "true", "[[]]"]


def test_no_number_breaks_anything(world: Any, client: Any) -> None:
    for number in NUMBERS:
        for response in asked_with_number(world, client, number):
            assert_answered_or_refused(response)
    assert client.get("/v1/trending", params={"price_min": 0}).status_code == 200


def asked_with_number(world: Any, client: Any, number: str) -> Iterator[Any]:
    """Every operation, with what may be a number wherever one may be."""

    def send(method: str, path: str, content: str) -> Any:
        assert "NUMBER" in content
        body = content.replace('"NUMBER"', number)
        return client.request(method, path, content=body, headers=JSON)

    item = {"item_id": "i1", "title": "t", "created_ts": "2026-01-01"}
    for changes in ({"value": "NUMBER"}, {"attributes": {"n": "NUMBER"}}, {"event_ts": "NUMBER"}):
        yield send("POST", "/v1/events", json.dumps(world.event("e", "i1", **changes)))
    for changes in (
        *({"created_ts": "NUMBER"}, {"text_vector": ["NUMBER"]}),
        *({"attributes": {"price": "NUMBER"}}, {"attributes": {"expires_ts": "NUMBER"}}),
    ):
        yield send("PUT", "/v1/items", json.dumps(item | changes))
        yield client.get("/v1/trending", params={"price_min": 0})  # while the item stands
    session = {"events": [{"item_id": "i1"}], "limit": "NUMBER", "price_max": "NUMBER"}
    yield send("POST", "/v1/sessions/recommendations", json.dumps(session))
    for name in ("price_min", "price_max", "limit", "fill", "explain"):
        yield client.get("/v1/trending", params={name: number})


TIMES = [
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "1969-12-31T23:59:59Z",
    "2026-02-30T00:00:00Z",
    "1e20",
    "-1",
    "",
]


def test_no_time_breaks_anything(world: Any, client: Any) -> None:
    for text in TIMES:
        for response in asked_with_time(world, client, text):
            assert_answered_or_refused(response)
    assert client.get("/v1/trending").status_code == 200


def asked_with_time(world: Any, client: Any, text: str) -> Iterator[Any]:
    """Every operation that takes a time."""
    yield client.post("/v1/events", json=world.event("e", "i1", event_ts=text))
    session = {"events": [{"item_id": "i1", "event_ts": text}, {"item_id": "i2"}]}
    yield client.post("/v1/sessions/recommendations", json=session)
    item = {"item_id": "i1", "title": "t", "created_ts": "2026-01-01"}
    yield client.put("/v1/items", json=item | {"created_ts": text})
    yield client.put("/v1/items", json=item | {"attributes": {"expires_ts": text}})


def test_a_clock_that_is_wrong_a_little_is_put_right_and_a_wrong_one_refused(
    world: Any, client: Any
) -> None:
    minutes = {"ahead": 4, "too far ahead": 6, "late": -48 * 60, "too late": -50 * 60}
    found = {}
    for name, skew in minutes.items():
        at = (world.now + timedelta(minutes=skew)).isoformat()
        found[name] = client.post("/v1/events", json=world.event(name, "i1", event_ts=at))
    assert {name: response.status_code for name, response in found.items()} == {
        "ahead": 200,
        "too far ahead": 422,
        "late": 200,
        "too late": 422,
    }
    assert max(event.event_ts for event in world.accepted()) <= world.now


def test_an_event_that_is_sent_again_and_again_counts_once(world: Any, client: Any) -> None:
    """Also by many at once, in one batch, and with other content under its id."""

    def send(turn: int) -> list[str]:
        batch = [world.event("e1", "i1"), world.event("e1", f"i{turn % 4}", user_id="bob")]
        answer = client.post("/v1/events", json=batch).json()
        return [receipt["status"] for receipt in answer["events"]]

    with ThreadPoolExecutor(8) as pool:
        statuses = [status for found in pool.map(send, range(40)) for status in found]
    assert (statuses.count("accepted"), statuses.count("duplicate")) == (1, 79)
    assert len(world.accepted()) == 1


BODIES = [
    b"[" * 200_000,
    b'{"a":' * 50_000,
    b'"' + b"\\ud800" * 1000 + b'"',
    b"\xff\xfe" * 100,
    b"null",
    b"0",
    b'{"events": null}',
    b'[null, 1, "x", [], {}]',
    b"[" + b"{}," * 20_000 + b"{}]",
]


def test_no_body_breaks_anything(client: Any) -> None:
    for body in BODIES:
        for method, path in (
            ("POST", "/v1/events"),
            ("PUT", "/v1/items"),
            ("POST", "/v1/sessions/recommendations"),
        ):
            assert_answered_or_refused(client.request(method, path, content=body, headers=JSON))


@pytest.mark.parametrize(("rows", "status"), [(10_000, 207), (10_001, 413)])
def test_a_request_has_so_many_rows_at_most(client: Any, rows: int, status: int) -> None:
    """Each is judged, kept and answered for, however short it is."""
    for method, path in (("POST", "/v1/events"), ("PUT", "/v1/items")):
        response = client.request(method, path, json=[7] * rows)
        assert response.status_code == status


# Over a connection


@pytest.fixture
def port(world: Any, listening: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server that has little patience."""
    monkeypatch.setenv("NEARLINE_CLIENT_TIMEOUT_S", "0.3")
    monkeypatch.setenv("NEARLINE_MAX_BODY_BYTES", "2048")
    settings.cache_clear()
    world.promote(ITEMS)
    with listening(world.app()) as port:
        yield port


def told(connection: socket.socket) -> bytes:
    """All that is answered until the server closes; fails when it never does."""
    connection.settimeout(20)
    found = b""
    try:
        while data := connection.recv(65_536):
            found += data
    except ConnectionResetError:
        pass
    return found


HEAD = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
WHOLE = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", WHOLE[:9], HEAD + b"Content-Length: 9\r\n\r\n["])
def test_a_client_that_does_not_go_on_is_hung_up_on(port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as silent:
        silent.sendall(sent)
        answer = told(silent)
    assert (b" 408 " in answer and b'"too_slow"' in answer) == sent.startswith(HEAD)


@pytest.mark.parametrize(
    ("whole", "slowly"),
    [
        (b"", HEAD * 10),
        (WHOLE, b"\r\n" * 1000),
        (WHOLE, HEAD * 10),
        (b"", HEAD + b"Content-Length: 2000\r\n\r\n" + b" " * 2000),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n[\r\n" * 100),
    ],
)
def test_a_client_that_goes_on_by_single_bytes_is_hung_up_on(
    port: int, whole: bytes, slowly: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(whole)
        with pytest.raises(ConnectionError):
            trickle(slow, slowly)


def trickle(connection: socket.socket, data: bytes) -> None:
    """Send one byte after the other; ends by an error when the other side hangs up."""
    for byte in data:
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


def send_until_cut(connection: socket.socket, data: bytes) -> None:
    """Send the same again and again; ends by an error when the other side hangs up."""
    for _ in range(100_000):
        connection.sendall(data)


def test_a_head_that_never_ends_is_hung_up_on(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as endless:
        endless.sendall(b"GET /healthz HTTP/1.1\r\n")
        with pytest.raises(ConnectionError):
            send_until_cut(endless, b"x: " + b"y" * 1000 + b"\r\n")


def test_a_body_that_never_ends_is_hung_up_on(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as endless:
        endless.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        with pytest.raises(ConnectionError):
            send_until_cut(endless, b"400\r\n" + b" " * 1024 + b"\r\n")


def test_a_client_that_hangs_up_is_no_failure_of_ours(
    port: int, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", port)) as leaving:
        leaving.sendall(HEAD + b"Content-Length: 99\r\n\r\n[")
        time.sleep(0.05)  # it has begun to wait for the body
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        gone = 'nearline_requests_total{endpoint="/v1/events",status="499"} 1.0'
        eventually(lambda: gone in client.get("/metrics").text)
        assert 'status="500"' not in client.get("/metrics").text
    assert "Traceback" not in caplog.text


def test_a_client_that_does_not_read_is_hung_up_on(
    port: int, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It asks for more than the machine keeps for it, many times at once."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client, socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(("127.0.0.1", port))
        stalled.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 500)
        with pytest.raises(ConnectionError):
            trickle(stalled, WHOLE * 10)
        assert client.get("/healthz").status_code == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


class Unread(asyncio.Transport):
    """A connection of which the client reads nothing: it is closed when what is left is dropped."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.protocol, self.closing, self.gone = protocol, False, asyncio.Event()
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        """Kept for ever."""

    def close(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.protocol.connection_lost(None)
        self.gone.set()


@pytest.mark.parametrize("end", ["timeout_keep_alive_handler", "shutdown"])
def test_what_is_left_unread_ends_with_the_patience(
    home: Any, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setenv("NEARLINE_CLIENT_TIMEOUT_S", "0.1")
    settings.cache_clear()

    async def closed_and_never_read() -> None:
        state = ServerState()
        protocol = GuardedProtocol(server_config(FastAPI()), server_state=state, app_state={})
        transport = Unread(protocol)
        getattr(protocol, end)()
        async with asyncio.timeout(20):
            await transport.gone.wait()
        assert not state.connections

    asyncio.run(closed_and_never_read())


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00", b"x\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
def test_what_is_not_http_is_refused(port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as odd:
        odd.sendall(sent)
        assert b"HTTP/1.1 400" in told(odd)


def test_slow_clients_do_not_keep_others_waiting(port: int) -> None:
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    for connection in slow:
        connection.sendall(HEAD)
    with socket.create_connection(("127.0.0.1", port)) as quick:
        quick.sendall(WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert b"200 OK" in told(quick)
    for connection in slow:
        told(connection)
        connection.close()
