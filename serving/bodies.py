"""Bodies: those of requests are sent as JSON, and judged by who takes them; and of answers."""

import json
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from pydantic import BaseModel

from serving.errors import ServiceError
from serving.schema import MOST_ROWS

BODY_CODES = ("bad_request", "too_slow", "too_large", "unsupported_media_type")
"""What an operation that takes a body may answer instead."""


async def sent_as_json(request: Request) -> None:
    """Refuse a body of another type than application/json.

    A page of another site may post plain text to an address of ours without asking, but not this
    type.
    """
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json":
        raise ServiceError(
            f"content type {media_type!r}: send application/json", code="unsupported_media_type"
        )


async def json_body(request: Request) -> Any:
    """The body as JSON gave it; who takes it judges what is in it."""
    await sent_as_json(request)
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise ServiceError(f"the body is no JSON: {error}", code="bad_request") from error


AsJson = Depends(sent_as_json)
"""For an operation whose body FastAPI reads."""

Posted = Annotated[Any, Depends(json_body)]


def rows_of(posted: Any, what: str) -> list[Any]:
    """What was posted, one or a list, as a list. Raises ServiceError for none, or too many."""
    rows = posted if isinstance(posted, list) else [posted]
    if not rows:
        raise ServiceError(f"the list holds no {what}", code="invalid")
    if len(rows) > MOST_ROWS:
        raise ServiceError(
            f"the list holds {len(rows)} {what}s: send at most {MOST_ROWS} at once",
            code="too_large",
        )
    return rows


def sent(answer: BaseModel, *, status: int = 200) -> Response:
    """An answer as it is sent: it is checked already, and FastAPI need not check it again.

    It would do so on the event loop, where thousands of receipts make all other requests wait.
    """
    body = answer.model_dump_json()
    return Response(body, status_code=status, media_type="application/json")
