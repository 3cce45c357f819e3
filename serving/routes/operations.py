"""What operators and balancers ask: alive, ready, which release, figures."""

from typing import Annotated

from fastapi import FastAPI, Query, Response

from serving.problems import errors
from serving.schema import MOST_ITEMS, Health, ReleaseInfo, ReleaseLine, ReleaseList
from serving.service import Service


def add_operations(app: FastAPI, service: Service) -> None:
    """Add the addresses of operation."""
    active, metrics = service.active, service.metrics

    @app.get("/v1/release", responses=errors("not_ready"), tags=["releases"])
    def release() -> ReleaseInfo:
        """The release that answers now."""
        pinned = active.pin()
        loaded = pinned.release
        return ReleaseInfo(
            **loaded.manifest.model_dump(exclude={"files", "sha256"}),
            encoder=loaded.encoder,
            items=len(loaded.matrix),
            recommendable=int(pinned.shelf.on_offer.sum()),
            stands_in_for=active.stands_in_for,
        )

    @app.get("/v1/releases", responses=errors("invalid", "corrupt_release"), tags=["releases"])
    def releases(
        limit: Annotated[int, Query(ge=1, le=MOST_ITEMS, description="Most releases.")] = 20,
    ) -> ReleaseList:
        """The releases of the store, newest first, with the gate's verdicts."""
        named = active.store.active()
        newest = active.store.manifests()[::-1][:limit]
        fields = set(ReleaseLine.model_fields)
        return ReleaseList(
            releases=[
                ReleaseLine(**found.model_dump(include=fields), active=found.version == named)
                for found in newest
            ]
        )

    # Not in a thread of the pool: a balancer is answered while all of them wait. Some ask by HEAD.
    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", tags=["operation"])
    async def alive() -> Health:
        """Whether the process answers."""
        return Health(status="ok", release=None)

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", responses=errors("not_ready"), tags=["operation"])
    async def ready() -> Health:
        """Whether there is a release to answer from."""
        release = active.pin().release.version
        return Health(status="ready", release=release, stands_in_for=active.stands_in_for)

    @app.get("/metrics", response_class=Response, include_in_schema=False)
    def figures() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
