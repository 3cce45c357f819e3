"""What the log tells of errors: of which kind, and where. What they quote may name users.

`KeyError: 'ann'`, or what pydantic found wrong with an event, would bring ids into the log.
"""

import logging
import os
import threading
from collections.abc import Iterator
from traceback import format_tb
from typing import Any

from nearline.errors import NearlineError
from serving.errors import ServiceError

log = logging.getLogger(__name__)


def told(error: BaseException) -> str:
    """What may be logged of an error: its kind, and what is wrong where we or the system say it."""
    kind = type(error).__name__
    if isinstance(error, NearlineError) and not isinstance(error, ServiceError):
        return f"{kind}: {error}"
    if isinstance(error, OSError) and error.errno:
        where = f": {error.filename}" if error.filename else ""
        return f"{kind}: {os.strerror(error.errno)}{where}"
    return kind


def trace(error: BaseException) -> str:
    """What may be logged of an error, of what led to it, and where they were raised."""
    return "\n".join(_lines(error))


def _lines(error: BaseException) -> Iterator[str]:
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _lines(before)
        yield "which led to"
    yield "Traceback (most recent call last):"
    yield "".join(format_tb(error.__traceback__)).rstrip()
    yield told(error)
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _lines(each)


class PlainFormatter(logging.Formatter):
    """Formats errors by `trace`, whoever logs them."""

    def format(self, record: logging.LogRecord) -> str:
        record.exc_text = None  # another handler's formatter leaves the whole text there
        return super().format(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802  (logging names it so)
        return trace(ei[1]) if ei[1] else ""


def thread_ended(args: threading.ExceptHookArgs) -> None:
    """Log what ended a thread; Python would print all of it."""
    name = args.thread.name if args.thread else "of no name"
    log.error("thread %s ended:\n%s", name, trace(args.exc_value or args.exc_type()))


LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "plain": {
            "class": "serving.logs.PlainFormatter",
            "format": "%(levelname)s %(name)s: %(message)s",
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"level": "INFO", "handlers": ["stderr"]},
    "loggers": {"feast": {"level": "WARNING"}, "uvicorn": {"level": "WARNING"}},
}
"""How the processes that answer log."""
