"""What every request goes through: its id, its key, the size of its body, and the figures."""

import asyncio
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access import Access
from serving.errors import ServiceError
from serving.logs import trace
from serving.metrics import Metrics
from serving.problems import problem_response
from serving.segments import as_sent

log = logging.getLogger(__name__)

_HUNG_UP = 499
"""What nginx calls a request whose client is gone before its body is there; nobody is answered."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def _bug(request_id: str) -> ServiceError:
    return ServiceError(f"the service failed: look for request {request_id} in its log")


def _route(scope: Scope) -> str:
    """The route's template, not the path: labels must stay few, and logs name no user.

    A request that was refused before it was routed is counted where it would have gone.
    """
    found = scope.get("route") or next(
        (route for route in scope["app"].routes if route.matches(scope)[0] != Match.NONE), None
    )
    return getattr(found, "path_format", "none")


class Gate:
    """Gives each request an id, refuses it where its key may not ask, and counts it.

    The id is the caller's `X-Request-ID` where it has one of up to 64 letters, digits, `._-`. The
    request's state has it as `request_id`, and whose key it is as `caller`. A list needs an id
    that no other has, which a caller's may not be: it is `list_id`, which begins with the other.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, access: Access) -> None:
        self.app = app
        self._metrics = metrics
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, headers = time.perf_counter(), Headers(scope=scope)
        status: int | None = None
        given = headers.get("x-request-id", "")
        own, told = uuid.uuid4().hex, _REQUEST_ID.fullmatch(given) is not None
        request_id = given if told else own
        ids = {"request_id": request_id, "list_id": f"{given}.{own}" if told else own}
        scope.setdefault("state", {}).update(ids)
        scope["path"] = as_sent(scope)

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            app = self._admitted(scope, headers)
            await app(scope, receive, send_with_id)
        except ClientDisconnect:
            status = status or _HUNG_UP
        except Exception as error:
            route, found = _route(scope), trace(error)
            log.error("request %s failed: %s %s\n%s", request_id, scope["method"], route, found)
            if status is None:
                response = problem_response(_bug(request_id), scope)
                await response(scope, receive, send_with_id)
        finally:
            self._count(scope, status or 500, time.perf_counter() - began)

    def _admitted(self, scope: Scope, headers: Headers) -> ASGIApp:
        """The app, or the answer to who may not ask it."""
        # Starlette reads headers as Latin-1: encoding that way gives the caller's bytes back.
        authorization = headers.get("authorization", "").encode("latin-1")
        try:
            host = headers.get("host", "")
            caller = self._access.admit(scope["method"], scope["path"], authorization, host)
        except ServiceError as refusal:
            return problem_response(refusal, scope)
        scope["state"]["caller"] = caller
        return self.app

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        endpoint = _route(scope)
        self._metrics.requests.labels(endpoint, str(status)).inc()
        self._metrics.latency.labels(endpoint).observe(seconds)


def _passed_on(error: ServiceError) -> HTTPException:
    """The error as FastAPI, which reads bodies, hands it on to the app's handlers."""
    return HTTPException(error.status, error.message)


class BodyLimit:
    """Refuses bodies beyond `max_bytes`, announced or arriving, and those that take too long."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, timeout_s: float) -> None:
        self.app = app
        self._max_bytes, self._timeout_s = max_bytes, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            await problem_response(self._too_large(), scope)(scope, receive, send)
            return
        read, arriving, due = 0, True, asyncio.get_running_loop().time() + self._timeout_s

        async def receive_some() -> Message:
            nonlocal read, arriving
            if not arriving:
                return await receive()
            try:
                async with asyncio.timeout_at(due):
                    message = await receive()
            except TimeoutError:
                raise _passed_on(self._too_slow()) from None
            read += len(message.get("body", b""))
            if read > self._max_bytes:
                raise _passed_on(self._too_large())
            arriving = message.get("more_body", False)
            return message

        await self.app(scope, receive_some, send)

    def _too_large(self) -> ServiceError:
        return ServiceError(
            f"the body is longer than {self._max_bytes} bytes: send fewer events at once, or raise "
            "NEARLINE_MAX_BODY_BYTES",
            code="too_large",
        )

    def _too_slow(self) -> ServiceError:
        return ServiceError(
            f"the body did not arrive in {self._timeout_s:g} s: send less at once, or raise "
            "NEARLINE_CLIENT_TIMEOUT_S",
            code="too_slow",
        )
