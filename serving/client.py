"""The typed client, for both kinds of callers.

`RecommendationClient` waits, `AsyncRecommendationClient` is awaited. It needs what `pip install` of
this package brings, and nothing of what training or the API need.

    with RecommendationClient(base_url="http://127.0.0.1:8900", timeout_s=2) as client:
        for item in client.recommendations(user_id="42", limit=10).items:
            print(item.item_id, item.title)

Errors are drawn in serving/errors.py. Calls may be sent again without harm (reads change nothing,
events are known by their ids; but a rollback that names no version would go back twice, so it is
sent once): a call that got no answer is tried `retries` times more, after pauses that grow and are
drawn by lot: clients that failed together do not come back together. So is one that was told to
come back (Retry-After) in less than `timeout_s`.
"""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from nearline.records import Event, Item
from nearline.settings import settings
from serving.errors import Fault, ServiceFailed, ServiceTimeout, Unreachable, error_for
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

    def read(self, response: httpx.Response) -> A:
        """The answer. Raises ServiceError for an error answer or for none of ours."""
        try:
            if response.is_success:
                return self.answer.model_validate_json(response.content)
            problem = Problem.model_validate_json(response.content)
        except ValidationError as error:
            raise ServiceFailed(
                f"{response.request.url} answered {response.status_code} with "
                f"{response.text[:80]!r}, which is not Nearline: check the address"
            ) from error
        raise error_for(
            problem.code,
            problem.detail,
            request_id=problem.request_id,
            faults=[Fault(wrong.pointer, wrong.detail) for wrong in problem.errors],
            retry_after_s=_retry_after_s(response),
        )


def _retry_after_s(response: httpx.Response) -> float | None:
    told = response.headers.get("retry-after", "")
    return float(told) if told.isdigit() else None


def _recommendations(user_id: str, options: ListOptions) -> _Call[ItemList]:
    return _list(f"/v1/users/{quote(user_id, safe='')}/recommendations", options)


def _recommendations_of(user_ids: Sequence[str], options: ListOptions) -> _Call[Batch]:
    body = {"user_ids": list(user_ids), **_query(options)}
    return _Call(Batch, "POST", "/v1/recommendations", json=body)


def _similar(item_id: str, options: ListOptions) -> _Call[ItemList]:
    return _list(f"/v1/items/{quote(item_id, safe='')}/similar", options)


def _trending(options: ListOptions) -> _Call[ItemList]:
    return _list("/v1/trending", options)


def _list(path: str, options: ListOptions) -> _Call[ItemList]:
    return _Call(ItemList, "GET", path, _query(options))


def _search(words: str, user_id: str | None, options: ListOptions) -> _Call[ItemList]:
    given = {"q": words} if user_id is None else {"q": words, "user_id": user_id}
    return _Call(ItemList, "GET", "/v1/search", given | _query(options))


def _user(user_id: str) -> _Call[UserKnown]:
    return _Call(UserKnown, "GET", f"/v1/users/{quote(user_id, safe='')}")


def _forget(user_id: str) -> _Call[UserForgotten]:
    return _Call(UserForgotten, "DELETE", f"/v1/users/{quote(user_id, safe='')}")


def _put_items(items: Sequence[Item | Mapping[str, Any]]) -> _Call[ItemsAnswer]:
    rows = [e.model_dump(mode="json") if isinstance(e, Item) else dict(e) for e in items]
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
    told = [SessionEventIn(item_id=e) if isinstance(e, str) else e for e in events]
    body = {"events": [e.model_dump(mode="json") for e in told], **_query(options)}
    return _Call(SessionItemList, "POST", "/v1/sessions/recommendations", json=body)


def _query(options: ListOptions) -> dict[str, Any]:
    """The options under the names of ListQuery; the service judges them."""
    given: dict[str, Any] = dict(options)
    values = given.pop("attributes", {}).items()
    lists = {
        "category": given.pop("categories", ()),
        "attribute": [f"{name}:{text}" for name, texts in values for text in texts],
        "exclude": given.pop("exclude", ()),
    }
    return given | {name: list(found) for name, found in lists.items() if found}


def _send_events(events: Sequence[Event | Mapping[str, Any]]) -> _Call[EventsAnswer]:
    rows = [e.model_dump(mode="json") if isinstance(e, Event) else dict(e) for e in events]
    return _Call(EventsAnswer, "POST", "/v1/events", json=rows)


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
        scheme = "https" if config.tls_cert else "http"
        default = f"{scheme}://{config.serve_host}:{config.serve_port}"
        key = config.api_key if api_key is None else api_key
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

    `base_url` and `api_key` default to the settings; `timeout_s` bounds each attempt; `transport`
    is any httpx transport, as a test needs.
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
        """Hand events in; each is judged by itself, and accepted ones are on disk."""
        return self._send(_send_events(events))

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
        options = self._options.sending(call)
        for attempt in range(options.retries + 1):
            failure: httpx.TransportError | httpx.Response
            try:
                response = self._http.request(
                    call.method, call.path, params=call.params, json=call.json
                )
                if not options.asks_again(attempt, response):
                    return call.read(response)
                failure = response
            except httpx.TransportError as error:
                failure = error
            time.sleep(options.pause(attempt, failure))
        raise AssertionError("pause raises after the last attempt")


class AsyncRecommendationClient:
    """The client that is awaited; else as `RecommendationClient`."""

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
        """Hand events in; each is judged by itself, and accepted ones are on disk."""
        return await self._send(_send_events(events))

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
        options = self._options.sending(call)
        for attempt in range(options.retries + 1):
            failure: httpx.TransportError | httpx.Response
            try:
                response = await self._http.request(
                    call.method, call.path, params=call.params, json=call.json
                )
                if not options.asks_again(attempt, response):
                    return call.read(response)
                failure = response
            except httpx.TransportError as error:
                failure = error
            await asyncio.sleep(options.pause(attempt, failure))
        raise AssertionError("pause raises after the last attempt")
