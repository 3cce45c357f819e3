"""The typed client, for both kinds of callers.

`RecommendationClient` waits, `AsyncRecommendationClient` is awaited. It needs what `pip install` of
this package brings, and nothing of what training or the API need.

    with RecommendationClient(base_url="http://127.0.0.1:8900", timeout_s=2) as client:
        for item in client.recommendations(user_id="42", limit=10).items:
            print(item.item_id, item.title)

Errors are drawn in serving/errors.py; what cannot be sent is a RefusedRequest. Calls may be sent
again without harm (reads change nothing, events are known by their ids, which the client makes
where none is given; but a rollback that names no version would go back twice, so it is sent once):
a call that got no answer is tried `retries` times more, after pauses that grow and are drawn by
lot: clients that failed together do not come back together. So is one that was told to come back
(Retry-After) in less than `timeout_s`.
"""

import asyncio
import json
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack
from urllib.parse import quote
from uuid import uuid4

import httpx
from pydantic import BaseModel, ValidationError

from nearline.records import Event, Item
from nearline.settings import settings
from serving.addresses import service_url
from serving.errors import (
    DOTS,
    Fault,
    RefusedRequest,
    ServiceFailed,
    ServiceTimeout,
    Unauthorized,
    Unreachable,
    error_for,
)
from serving.schema import (
    Batch,
    EventsAnswer,
    Health,
    ItemList,
    ItemsAnswer,
    ListOptions,
    Problem,
    ReleaseInfo,
    ReleaseList,
    ReleaseMoved,
    SessionEventIn,
    SessionItemList,
    UserForgotten,
    UserKnown,
)

A = TypeVar("A", bound=BaseModel)

_PAUSE_S = 0.1
_GATEWAY = (502, 504)


@dataclass(frozen=True)
class _Call(Generic[A]):
    """One request, and the model of its answer. `once`: sent again, it would do more."""

    answer: type[A]
    method: str
    path: str
    params: Mapping[str, Any] | None = None
    json: Any = None
    once: bool = False

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """The request as a client of httpx sends it. Raises RefusedRequest where it cannot be."""
        with _sendable():
            body, headers = None, {}
            if self.json is not None:
                body = json.dumps(self.json, allow_nan=False, default=_as_json).encode()
                headers = {"Content-Type": "application/json"}
            return http.build_request(
                self.method, self.path, params=self.params, content=body, headers=headers
            )

    def read(self, response: httpx.Response, content: bytes) -> A:
        """The answer. Raises ServiceError for an error answer or for none of ours."""
        try:
            if response.is_success:
                return self.answer.model_validate_json(content)
            problem = Problem.model_validate_json(content)
        except ValidationError as error:
            raise ServiceFailed(
                f"{response.request.url} answered {response.status_code} with "
                f"{content[:80].decode(errors='replace')!r}, which is not Nearline: check the "
                "address"
            ) from error
        raise error_for(
            problem.code,
            problem.detail,
            request_id=problem.request_id,
            faults=[Fault(wrong.pointer, wrong.detail) for wrong in problem.errors],
            retry_after_s=_retry_after_s(response),
        )


def _as_json(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} is nothing that JSON has")


@contextmanager
def _sendable() -> Iterator[None]:
    """Tell what keeps a request from being made as an error of ours."""
    try:
        yield
    except (httpx.InvalidURL, TypeError, ValueError, RecursionError) as error:
        raise RefusedRequest(f"the request cannot be sent: {error}") from error


@contextmanager
def _hopeful(http: httpx.Client | httpx.AsyncClient) -> Iterator[None]:
    """Tell what another attempt would not change as an error of ours."""
    if http.is_closed:
        raise RefusedRequest("the client is closed: make another, or ask within its `with`")
    try:
        yield
    # RuntimeError: the client was closed meanwhile, or its event loop was.
    except (httpx.LocalProtocolError, httpx.UnsupportedProtocol, RuntimeError) as error:
        raise RefusedRequest(f"the request cannot be sent: {error}") from error
    except httpx.DecodingError as error:
        raise ServiceFailed(f"the answer is damaged ({error}): check the address") from error


def _segment(item_or_user: str) -> str:
    """An id as one segment of an address: see serving/segments.py."""
    if not isinstance(item_or_user, str):
        raise RefusedRequest(
            f"the id {item_or_user!r} is no text: give it as {str(item_or_user)!r}"
        )
    if not item_or_user:
        raise RefusedRequest("the id is empty: name a user or an item")
    if item_or_user in DOTS:
        raise RefusedRequest(
            f"{item_or_user!r} is no id in an address, as proxies resolve it on the way: ask for "
            "its recommendations by `recommendations_of`"
        )
    with _sendable():
        return quote(item_or_user, safe="")


def _many(what: str, given: Sequence[Any]) -> list[Any]:
    """A list of what is given; a text would be one of its letters."""
    if isinstance(given, str):
        raise RefusedRequest(f"{what}={given!r} is one text: give a list, as in [{given!r}]")
    with _sendable():
        return list(given)


def _named(what: str, given: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The pairs of names and values that are given."""
    if not isinstance(given, Mapping):
        raise RefusedRequest(f"{what}={given!r} names nothing: give a dict of names and values")
    return list(given.items())


def _retry_after_s(response: httpx.Response) -> float | None:
    told = response.headers.get("retry-after", "")
    return float(told) if told.isdigit() else None


def _recommendations(user_id: str, options: ListOptions) -> _Call[ItemList]:
    return _list(f"/v1/users/{_segment(user_id)}/recommendations", options)


def _recommendations_of(user_ids: Sequence[str], options: ListOptions) -> _Call[Batch]:
    body = {"user_ids": _many("user_ids", user_ids), **_query(options)}
    return _Call(Batch, "POST", "/v1/recommendations", json=body)


def _similar(item_id: str, options: ListOptions) -> _Call[ItemList]:
    return _list(f"/v1/items/{_segment(item_id)}/similar", options)


def _trending(options: ListOptions) -> _Call[ItemList]:
    return _list("/v1/trending", options)


def _list(path: str, options: ListOptions) -> _Call[ItemList]:
    return _Call(ItemList, "GET", path, _query(options))


def _search(words: str, user_id: str | None, options: ListOptions) -> _Call[ItemList]:
    given = {"q": words} if user_id is None else {"q": words, "user_id": user_id}
    return _Call(ItemList, "GET", "/v1/search", given | _query(options))


def _user(user_id: str) -> _Call[UserKnown]:
    return _Call(UserKnown, "GET", f"/v1/users/{_segment(user_id)}")


def _forget(user_id: str) -> _Call[UserForgotten]:
    return _Call(UserForgotten, "DELETE", f"/v1/users/{_segment(user_id)}")


def _row(given: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    with _sendable():
        return given.model_dump(mode="json") if isinstance(given, BaseModel) else dict(given)


def _put_items(items: Sequence[Item | Mapping[str, Any]]) -> _Call[ItemsAnswer]:
    rows = [_row(each) for each in _many("items", items)]
    return _Call(ItemsAnswer, "PUT", "/v1/items", json=rows)


def _releases(limit: int) -> _Call[ReleaseList]:
    return _Call(ReleaseList, "GET", "/v1/releases", {"limit": limit})


def _promote(version: str) -> _Call[ReleaseMoved]:
    path = "/v1/admin/releases/promote"
    return _Call(ReleaseMoved, "POST", path, json={"version": version})


def _rollback(version: str | None) -> _Call[ReleaseMoved]:
    path, body = "/v1/admin/releases/rollback", {"version": version}
    return _Call(ReleaseMoved, "POST", path, json=body, once=version is None)


def _session(
    events: Sequence[SessionEventIn | str], options: ListOptions
) -> _Call[SessionItemList]:
    rows = [{"item_id": e} if isinstance(e, str) else _row(e) for e in _many("events", events)]
    body = {"events": rows, **_query(options)}
    return _Call(SessionItemList, "POST", "/v1/sessions/recommendations", json=body)


def _query(options: ListOptions) -> dict[str, Any]:
    """The options under the names of ListQuery; the service judges them."""
    given: dict[str, Any] = dict(options)
    values = _named("attributes", given.pop("attributes", {}))
    around = _named("context", given.pop("context", {}))
    lists = {
        "context": [f"{name}:{value}" for name, value in around],
        "category": _many("categories", given.pop("categories", ())),
        "attribute": [f"{name}:{text}" for name, texts in values for text in _many(name, texts)],
        "exclude": _many("exclude", given.pop("exclude", ())),
    }
    return given | {name: found for name, found in lists.items() if found}


def _send_events(events: Sequence[Event | Mapping[str, Any]]) -> _Call[EventsAnswer]:
    rows = [_event(each) for each in _many("events", events)]
    return _Call(EventsAnswer, "POST", "/v1/events", json=rows)


def _send_event(event: Event | Mapping[str, Any]) -> _Call[EventsAnswer]:
    return _Call(EventsAnswer, "POST", "/v1/events", json=_event(event))


def _event(given: Event | Mapping[str, Any]) -> dict[str, Any]:
    """An event with an id: by it, another attempt of the same call is known for no other event."""
    row = _row(given)
    return row if row.get("event_id") is not None else row | {"event_id": uuid4().hex}


_RELEASE = _Call(ReleaseInfo, "GET", "/v1/release")
_HEALTH = _Call(Health, "GET", "/readyz")


@dataclass(frozen=True)
class _Options:
    """How to reach the service."""

    url: str
    timeout_s: float
    retries: int
    api_key: str

    @classmethod
    def of(cls, url: str | None, timeout_s: float, retries: int, api_key: str | None) -> "_Options":
        config = settings()
        default = service_url(config.serve_host, config.serve_port, tls=bool(config.tls_cert))
        key = config.api_key if api_key is None else api_key
        if not isinstance(timeout_s, int | float) or not 0 < timeout_s < math.inf:
            raise RefusedRequest(f"timeout_s={timeout_s!r}: give seconds, more than 0")
        if not isinstance(retries, int) or retries < 0:
            raise RefusedRequest(f"retries={retries!r}: give how often to try again, 0 or more")
        if not isinstance(key, str) or not key.isprintable() or key != key.strip():
            raise Unauthorized("the key has a space around it, or a character that no header has")
        return cls(url or default, timeout_s, retries, key)

    def for_httpx(self) -> dict[str, Any]:
        """The arguments that both clients of httpx take."""
        key = f"Bearer {self.api_key}".encode()
        headers = {"Authorization": key} if self.api_key else {}
        return {"base_url": self.url, "timeout": self.timeout_s, "headers": headers}

    def sending(self, call: _Call[Any]) -> "_Options":
        """These options for a call."""
        return replace(self, retries=0) if call.once else self

    def asks_again(self, attempt: int, response: httpx.Response) -> bool:
        """Whether an answer is none yet: a gateway's, or one that is due before `timeout_s`."""
        if response.status_code in _GATEWAY:
            return True
        wait_s = _retry_after_s(response)
        return wait_s is not None and wait_s <= self.timeout_s and attempt < self.retries

    def pause(self, attempt: int, failure: httpx.TransportError | httpx.Response) -> float:
        """Seconds to wait before the next attempt. Raises Unreachable when there is none."""
        if attempt < self.retries:
            told_s = _retry_after_s(failure) if isinstance(failure, httpx.Response) else None
            return (told_s or 0.0) + random.uniform(0.5, 1) * _PAUSE_S * 2.0**attempt
        if isinstance(failure, httpx.TimeoutException):
            raise ServiceTimeout(f"{self.url} did not answer in {self.timeout_s} s") from failure
        if isinstance(failure, httpx.Response):
            raise Unreachable(f"{self.url}: a gateway answered {failure.status_code}")
        raise Unreachable(
            f"{self.url} cannot be reached ({failure}): is `nearline serve` running there?"
        ) from failure


class RecommendationClient:
    """The client that waits. Close it, or use it in a `with`.

    `base_url` and `api_key` default to the settings; `transport` is any httpx transport, as a test
    needs. An attempt is given up when nothing comes for `timeout_s`, and once its answer has begun
    to come, when it is not there `timeout_s` after it was asked for.
    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        timeout_s: float = 5.0,
        retries: int = 2,
        api_key: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._options = _Options.of(base_url, timeout_s, retries, api_key)
        with _sendable():
            self._http = httpx.Client(transport=transport, **self._options.for_httpx())

    def recommendations(self, *, user_id: str, **options: Unpack[ListOptions]) -> ItemList:
        """Recommendations for a user; for a stranger what is trending."""
        return self._send(_recommendations(user_id, options))

    def recommendations_of(
        self, *, user_ids: Sequence[str], **options: Unpack[ListOptions]
    ) -> Batch:
        """Recommendations for up to MOST_USERS users in one call, in the order of `user_ids`."""
        return self._send(_recommendations_of(user_ids, options))

    def similar(self, *, item_id: str, **options: Unpack[ListOptions]) -> ItemList:
        """Items like an item. Raises UnknownItem."""
        return self._send(_similar(item_id, options))

    def trending(self, **options: Unpack[ListOptions]) -> ItemList:
        """What the whole site touches now."""
        return self._send(_trending(options))

    def session(
        self, *, events: Sequence[SessionEventIn | str], **options: Unpack[ListOptions]
    ) -> SessionItemList:
        """Recommendations for an anonymous visitor; an item id alone was touched just now."""
        return self._send(_session(events, options))

    def send_events(self, *, events: Sequence[Event | Mapping[str, Any]]) -> EventsAnswer:
        """Hand events in; each is judged by itself, and accepted ones are on disk.

        The answer tells which were `refused`, and why. One without an `event_id` is given one.
        """
        return self._send(_send_events(events))

    def send_event(self, *, event: Event | Mapping[str, Any]) -> EventsAnswer:
        """Hand one event in, as `send_events`. Raises RefusedRequest for one that is refused."""
        return self._send(_send_event(event))

    def search(
        self, *, words: str, user_id: str | None = None, **options: Unpack[ListOptions]
    ) -> ItemList:
        """Items by keywords, to the taste of a user where one is given."""
        return self._send(_search(words, user_id, options))

    def user(self, *, user_id: str) -> UserKnown:
        """What is known of a user. Raises UnknownUser."""
        return self._send(_user(user_id))

    def forget_user(self, *, user_id: str) -> UserForgotten:
        """Forget a user, in every answer from now on; what is stored is removed later."""
        return self._send(_forget(user_id))

    def put_items(self, *, items: Sequence[Item | Mapping[str, Any]]) -> ItemsAnswer:
        """Put items into the catalogue; each is judged by itself, and accepted ones are on disk."""
        return self._send(_put_items(items))

    def releases(self, *, limit: int = 20) -> ReleaseList:
        """The releases of the store, newest first."""
        return self._send(_releases(limit))

    def promote(self, *, version: str) -> ReleaseMoved:
        """Make a release the active one. Raises RefusedRequest where it may not go live."""
        return self._send(_promote(version))

    def rollback(self, *, version: str | None = None) -> ReleaseMoved:
        """Go back to an earlier release: the one before, or the one that is named."""
        return self._send(_rollback(version))

    def release(self) -> ReleaseInfo:
        """The release that answers now. Raises ServiceNotReady without one."""
        return self._send(_RELEASE)

    def health(self) -> Health:
        """Whether the service can answer. Raises ServiceNotReady while it cannot."""
        return self._send(_HEALTH)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, call: _Call[A]) -> A:
        options, request = self._options.sending(call), call.request(self._http)
        for attempt in range(options.retries + 1):
            failure: httpx.TransportError | httpx.Response
            try:
                with _hopeful(self._http):
                    response, content = self._attempt(request)
                if not options.asks_again(attempt, response):
                    return call.read(response, content)
                failure = response
            except httpx.TransportError as error:
                failure = error
            time.sleep(options.pause(attempt, failure))
        raise AssertionError("pause raises after the last attempt")

    def _attempt(self, request: httpx.Request) -> tuple[httpx.Response, bytes]:
        """An answer and its content. Raises ReadTimeout when it comes too slowly."""
        due, content = time.monotonic() + self._options.timeout_s, bytearray()
        response = self._http.send(request, stream=True)
        try:
            for part in response.iter_bytes():
                content += part
                if time.monotonic() > due:
                    raise httpx.ReadTimeout("the answer comes too slowly", request=request)
        finally:
            response.close()
        return response, bytes(content)


class AsyncRecommendationClient:
    """The client that is awaited; else as `RecommendationClient`. Use it in one event loop.

    `timeout_s` bounds each attempt from its first byte to the last.
    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        timeout_s: float = 5.0,
        retries: int = 2,
        api_key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._options = _Options.of(base_url, timeout_s, retries, api_key)
        with _sendable():
            self._http = httpx.AsyncClient(transport=transport, **self._options.for_httpx())

    async def recommendations(self, *, user_id: str, **options: Unpack[ListOptions]) -> ItemList:
        """Recommendations for a user; for a stranger what is trending."""
        return await self._send(_recommendations(user_id, options))

    async def recommendations_of(
        self, *, user_ids: Sequence[str], **options: Unpack[ListOptions]
    ) -> Batch:
        """Recommendations for up to MOST_USERS users in one call, in the order of `user_ids`."""
        return await self._send(_recommendations_of(user_ids, options))

    async def similar(self, *, item_id: str, **options: Unpack[ListOptions]) -> ItemList:
        """Items like an item. Raises UnknownItem."""
        return await self._send(_similar(item_id, options))

    async def trending(self, **options: Unpack[ListOptions]) -> ItemList:
        """What the whole site touches now."""
        return await self._send(_trending(options))

    async def session(
        self, *, events: Sequence[SessionEventIn | str], **options: Unpack[ListOptions]
    ) -> SessionItemList:
        """Recommendations for an anonymous visitor; an item id alone was touched just now."""
        return await self._send(_session(events, options))

    async def send_events(self, *, events: Sequence[Event | Mapping[str, Any]]) -> EventsAnswer:
        """Hand events in; each is judged by itself, and accepted ones are on disk.

        The answer tells which were `refused`, and why. One without an `event_id` is given one.
        """
        return await self._send(_send_events(events))

    async def send_event(self, *, event: Event | Mapping[str, Any]) -> EventsAnswer:
        """Hand one event in, as `send_events`. Raises RefusedRequest for one that is refused."""
        return await self._send(_send_event(event))

    async def search(
        self, *, words: str, user_id: str | None = None, **options: Unpack[ListOptions]
    ) -> ItemList:
        """Items by keywords, to the taste of a user where one is given."""
        return await self._send(_search(words, user_id, options))

    async def user(self, *, user_id: str) -> UserKnown:
        """What is known of a user. Raises UnknownUser."""
        return await self._send(_user(user_id))

    async def forget_user(self, *, user_id: str) -> UserForgotten:
        """Forget a user, in every answer from now on; what is stored is removed later."""
        return await self._send(_forget(user_id))

    async def put_items(self, *, items: Sequence[Item | Mapping[str, Any]]) -> ItemsAnswer:
        """Put items into the catalogue; each is judged by itself, and accepted ones are on disk."""
        return await self._send(_put_items(items))

    async def releases(self, *, limit: int = 20) -> ReleaseList:
        """The releases of the store, newest first."""
        return await self._send(_releases(limit))

    async def promote(self, *, version: str) -> ReleaseMoved:
        """Make a release the active one. Raises RefusedRequest where it may not go live."""
        return await self._send(_promote(version))

    async def rollback(self, *, version: str | None = None) -> ReleaseMoved:
        """Go back to an earlier release: the one before, or the one that is named."""
        return await self._send(_rollback(version))

    async def release(self) -> ReleaseInfo:
        """The release that answers now. Raises ServiceNotReady without one."""
        return await self._send(_RELEASE)

    async def health(self) -> Health:
        """Whether the service can answer. Raises ServiceNotReady while it cannot."""
        return await self._send(_HEALTH)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _send(self, call: _Call[A]) -> A:
        options, request = self._options.sending(call), call.request(self._http)
        for attempt in range(options.retries + 1):
            failure: httpx.TransportError | httpx.Response
            try:
                with _hopeful(self._http):
                    response = await self._attempt(request)
                if not options.asks_again(attempt, response):
                    return call.read(response, response.content)
                failure = response
            except httpx.TransportError as error:
                failure = error
            await asyncio.sleep(options.pause(attempt, failure))
        raise AssertionError("pause raises after the last attempt")

    async def _attempt(self, request: httpx.Request) -> httpx.Response:
        """An answer. Raises ReadTimeout when it comes too slowly."""
        try:
            async with asyncio.timeout(self._options.timeout_s):
                return await self._http.send(request)
        except TimeoutError as error:
            raise httpx.ReadTimeout("the answer comes too slowly", request=request) from error
