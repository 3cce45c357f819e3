"""The HTTP API: JSON in and out, every error a problem of RFC 9457 (serving/errors.py).

| request | answer |
|---|---|
| `GET /v1/users/{user_id}/recommendations` | ListQuery → ItemList |
| `POST /v1/recommendations` | BatchRequest → Batch, up to 100 users |
| `POST /v1/sessions/recommendations` | SessionRequest → SessionItemList |
| `GET /v1/items/{item_id}/similar` | ListQuery → ItemList |
| `GET /v1/trending` | ListQuery → ItemList |
| `POST /v1/events` | one event or a list → EventsAnswer |
| `PUT /v1/items` | one item or a list → ItemsAnswer |
| `GET /v1/search` | SearchQuery → ItemList |
| `GET /v1/users/{user_id}` | UserKnown |
| `DELETE /v1/users/{user_id}` | 202, UserForgotten |
| `GET /v1/release`, `GET /v1/releases` | ReleaseInfo, ReleaseList |
| `POST /v1/admin/releases/promote` | Promotion → ReleaseMoved |
| `POST /v1/admin/releases/rollback` | Rollback → ReleaseMoved |
| `GET /healthz`, `GET /readyz` | Health |
| `GET /metrics` | figures for Prometheus |

`POST /v1/events` with one event answers 200, or 422 `event_refused`. With a list it judges each
event by itself: 200 when none was refused, 207 when some were; the others are kept all the same.
Sending events again changes nothing: they are known by their ids.

An id in an address is one segment of it, percent-encoded (serving/segments.py). Where there are
keys, each request needs one whose role may do it (serving/access.py).
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial

from fastapi import FastAPI

from nearline import __version__
from nearline.settings import settings
from serving.access import Access
from serving.again import Again
from serving.description import described
from serving.middleware import BodyLimit, Gate
from serving.problems import ANYWHERE, add_error_handlers
from serving.routes.admin import add_admin
from serving.routes.events import add_events
from serving.routes.items import add_items
from serving.routes.lists import add_lists
from serving.routes.operations import add_operations
from serving.routes.users import add_users
from serving.service import Service


def utc_now() -> datetime:
    """The clock of the API, and the only one: everything below takes `now` from it."""
    return datetime.now(UTC)


def create_app(
    *,
    service: Service | None = None,
    access: Access | None = None,
    clock: Callable[[], datetime] = utc_now,
    started: Callable[[], object] | None = None,
) -> FastAPI:
    """The app of the settings, or of what is given; it starts and closes the service.

    `started` is called once it has started, before the first request.
    """
    config, service, access = settings(), service or Service.open(), access or Access.open()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start(clock)
        if started is not None:
            started()
        yield
        service.close()
        access.close()

    app = FastAPI(
        title="Nearline",
        description="Recommendations that know what the user did seconds ago.",
        version=__version__,
        lifespan=lifespan,
        responses=ANYWHERE,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.openapi = partial(described, app)  # type: ignore[method-assign]
    app.add_middleware(Again, service=service, clock=clock)
    app.add_middleware(
        BodyLimit, max_bytes=config.max_body_bytes, timeout_s=config.client_timeout_s
    )
    app.add_middleware(Gate, metrics=service.metrics, access=access)
    add_error_handlers(app)
    add_lists(app, service, access, clock)
    add_events(app, service)
    add_items(app, service)
    add_users(app, service, clock)
    add_operations(app, service)
    add_admin(app, service)
    return app
