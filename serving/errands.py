"""A thread that runs calls one after the other, and that nobody has to wait for."""

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class Errands:
    """Calls for one thread. Unlike an executor's, the interpreter's end does not wait for it.

    A call that is cancelled before it begins is not run.
    """

    def __init__(self, name: str) -> None:
        self._waiting: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Have a call run after those before it."""
        future: Future[T] = Future()
        self._waiting.put((future, call))
        return future

    def close(self) -> None:
        """End the thread after the calls that were submitted; returns at once."""
        self._waiting.put(None)

    def _run(self) -> None:
        while (errand := self._waiting.get()) is not None:
            future, call = errand
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # as an executor does: whoever waits is told
                future.set_exception(error)
