"""HTTP/1.1 as uvicorn speaks it, for clients of which not all mean well."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from nearline.settings import settings

LONGEST_HEAD = 65_536
"""Bytes of a request's line and headers."""


class GuardedProtocol(HttpToolsProtocol):
    """Closes a connection whose next head does not arrive in time, or grows too long.

    uvicorn waits for a head for ever, and keeps as many headers as are sent: a few thousand
    connections that send a byte now and then, or one that never ends, would use the process up.
    """

    def __init__(self, *how: Any, **more: Any) -> None:
        super().__init__(*how, **more)
        self._patience_s = settings().client_timeout_s
        self._due: asyncio.TimerHandle | None = None
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        if self._due is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        self._head_bytes += len(data)
        super().data_received(data)
        if self._due is not None and self._head_bytes > LONGEST_HEAD:
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._due = self.loop.call_later(self._patience_s, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
