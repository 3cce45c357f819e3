"""HTTP/1.1 as uvicorn speaks it, for clients of which not all mean well."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from nearline.settings import settings

LONGEST_HEAD = 65_536
"""Bytes of a request's line and headers."""


class GuardedProtocol(HttpToolsProtocol):
    """Closes a connection whose next head does not arrive in time, or grows too long, and one that
    does not read its answers in time.

    uvicorn waits for both for ever, and keeps as many headers as are sent: a few thousand
    connections that send or read a byte now and then, or one that never ends, would use the process
    up, and keep it from stopping.
    """

    def __init__(self, *how: Any, **more: Any) -> None:
        super().__init__(*how, **more)
        self._patience_s = settings().client_timeout_s
        self._due: asyncio.TimerHandle | None = None
        self._read_by: asyncio.TimerHandle | None = None
        self._answering: RequestResponseCycle | None = None
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
            self._hang_up()

    def on_headers_complete(self) -> None:
        self._head_in_time()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_rest()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_in_time()
        self._await_rest()

    def timeout_keep_alive_handler(self) -> None:
        self._hang_up()

    def shutdown(self) -> None:
        super().shutdown()
        self._await_rest()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_in_time()
        self._read_in_time()
        if self._answering is not None and not self._answering.response_complete:
            # uvicorn tells the request that came last, which may wait behind this one.
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _hang_up(self) -> None:
        self.transport.close()
        self._await_rest()

    def _await_rest(self) -> None:
        """A connection that is closed lasts until all that was written is read."""
        if self.transport.is_closing():
            self._await_reader()

    def _await_reader(self) -> None:
        if self._read_by is None:
            self._read_by = self.loop.call_later(self._patience_s, self.transport.abort)

    def _read_in_time(self) -> None:
        if self._read_by is not None:
            self._read_by.cancel()
            self._read_by = None

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._due = self.loop.call_later(self._patience_s, self._hang_up)

    def _head_in_time(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
