"""What operators do to releases, as `nearline releases promote` and `rollback` do it.

The version is in the body, not in the path: a page of another site may post to an address of ours
without asking, but not a body of type JSON.
"""

import logging

from fastapi import FastAPI, Request

from serving.bodies import BODY_CODES, AsJson
from serving.problems import errors
from serving.schema import Promotion, ReleaseMoved, Rollback
from serving.service import Service

log = logging.getLogger(__name__)

_MOVED = errors(*BODY_CODES, "invalid", "unknown_release", "release_refused", "corrupt_release")


def add_admin(app: FastAPI, service: Service) -> None:
    """Add the addresses that move the release pointer."""
    store = service.active.store

    @app.post(
        "/v1/admin/releases/promote", responses=_MOVED, tags=["releases"], dependencies=[AsJson]
    )
    def promote(request: Request, body: Promotion) -> ReleaseMoved:
        """Make a release that the gate let pass the active one.

        An hourly release goes live only over its parent, a night only over older ones, and one that
        was rolled back not at all: a rollback that names it activates it again.
        """
        store.promote(body.version)
        return moved(request)

    @app.post(
        "/v1/admin/releases/rollback", responses=_MOVED, tags=["releases"], dependencies=[AsJson]
    )
    def rollback(request: Request, body: Rollback) -> ReleaseMoved:
        """Make an earlier release the active one: the one that is named, or the one before.

        It holds until another release is promoted; those that were active since stay away until a
        rollback names them.
        """
        store.rollback(body.version)
        return moved(request)

    def moved(request: Request) -> ReleaseMoved:
        pointer, request_id = store.pointer(), request.state.request_id
        caller = request.state.caller
        by = caller.name if caller else "anyone, without a key"
        log.warning("%s is active by request %s of %r", pointer.active, request_id, by)
        before = next(reversed(pointer.history), None)
        return ReleaseMoved(request_id=request_id, active=str(pointer.active), before=before)
