"""The short way to a list that was asked for a moment ago: serving/kept.py has what holds."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.kept import Kept
from serving.service import Service


class Again:
    """Answers from the kept lists, before the framework reads the request; else passes it on."""

    def __init__(self, app: ASGIApp, *, service: Service, clock: Callable[[], datetime]) -> None:
        self.app = app
        self._service = service
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET":
            now = self._clock()
            kept = self._service.kept.find(scope, now)
            if kept is not None and self._holds(kept, now):
                await self._answer(kept, scope, send, now)
                return
        await self.app(scope, receive, send)

    def _holds(self, kept: Kept, now: datetime) -> bool:
        # The loop must not wait for a thread that reads a long journal: such a request goes on
        # to a thread of its own.
        service = self._service
        if not service.caught_up(now):
            return False
        return kept.holds(service.basis(kept.basis.user_id, kept.shown.surface, now), now)

    async def _answer(self, kept: Kept, scope: Scope, send: Send, now: datetime) -> None:
        list_id = scope["state"]["list_id"]
        scope["route"] = kept.route
        self._service.metrics.answered(kept.route.path_format, kept.answer)
        self._service.shown(replace(kept.shown, request_id=list_id), asked=now)
        body = kept.body(list_id, now)
        headers = [
            (b"content-length", str(len(body)).encode()),
            (b"content-type", b"application/json"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
