"""Which release and which catalogue answer now: the pointer and the catalogue are followed."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from threading import Lock
from typing import TypeVar

from nearline.errors import CorruptRelease, NotReady
from nearline.pointer import Pointer
from nearline.releases import ReleaseStore
from nearline.settings import settings
from serving.backoff import Backoff
from serving.catalogue import Catalogue
from serving.following import CatalogueFollower
from serving.metrics import Metrics
from serving.ranker import Use
from serving.release import Encoder, LoadedRelease, Pinned

log = logging.getLogger(__name__)
T = TypeVar("T")

_RETRY_S = 60.0


class ActiveRelease:
    """Follows the release pointer and the catalogue, and gives requests what is current.

    A new release is loaded beside the old one and takes its place by one assignment. One that
    cannot be loaded is logged and counted, and another stands in for it: the one in use, or at a
    start the newest of those that were active before that can be loaded. It is tried again after a
    minute, or when the pointer names another. What was rolled back from stands in for nothing, nor
    does what the gate refused; but one that is in use answers on where there is no other.
    """

    def __init__(
        self,
        store: ReleaseStore,
        catalogue: CatalogueFollower,
        metrics: Metrics,
        *,
        encoder: Encoder,
        ranker: Use,
    ) -> None:
        self.store = store
        self._catalogue = catalogue
        self._metrics = metrics
        self._encoder: Encoder = encoder
        self._named: str | None = None
        self._unreadable: str | None = None
        self._active: LoadedRelease | None = None
        self._others: Mapping[str, LoadedRelease] = {}
        self._ranker: Use = ranker
        self._pinned: Pinned | None = None
        self._beside: Mapping[str, Pinned] = {}
        self._pinning = Lock()
        self._backoff = Backoff(first_s=_RETRY_S, most_s=_RETRY_S)

    @classmethod
    def open(cls, catalogue: CatalogueFollower, metrics: Metrics) -> "ActiveRelease":
        """The active release of the store that the settings name; nothing is loaded yet."""
        config, store = settings(), ReleaseStore.open()
        return cls(store, catalogue, metrics, encoder=config.encoder, ranker=config.ranker)

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue as it is, whether or not a release is active."""
        return self._catalogue.current

    @property
    def version(self) -> str | None:
        """The release in use, if there is one."""
        return self._pinned.release.version if self._pinned else None

    @property
    def stands_in_for(self) -> str | None:
        """The active release, while it cannot be loaded and the one in use stands in for it."""
        active = self._active
        return None if active is None or active.version == self._named else self._named

    def pin(self) -> Pinned:
        """What a request uses, first line to last. Raises NotReady without a release."""
        pinned = self._pinned
        if pinned is None and self._unreadable is not None:
            raise NotReady(self._unreadable)
        if pinned is None and self._named is not None:
            raise NotReady(
                f"release {self._named} is active, but neither it nor one before it can be loaded: "
                "the log says why. Roll back to one that is whole (`nearline releases rollback "
                "VERSION`), or train another (`nearline train`)"
            )
        if pinned is None:
            raise NotReady(
                "no release is active: train one (`nearline train`), or see `nearline releases`"
            )
        return pinned

    def beside(self, version: str) -> Pinned | None:
        """Another release, as `pin`; None for one that is not held, or could not be loaded."""
        return self._beside.get(version)

    def refresh(self, *, beside: Collection[str] = ()) -> None:
        """Take over what has changed since the last call, and hold those releases as well.

        One thread calls this.
        """
        self._attempt("catalogue", self._catalogue.refresh)
        before, stood_in_for, pointer = self._active, self.stands_in_for, self._pointer()
        held = {each.version: each for each in (before, *self._others.values()) if each}
        active = self._to_serve(pointer, held)
        others = {version: self._hold(version, held) for version in beside}
        with self._pinning:
            self._named, self._active = pointer.active, active
            self._others = {version: other for version, other in others.items() if other}
        self._pin()
        if active is not None and active is not before:
            self._metrics.release_loaded(active.manifest, active.encoder)
            log.info("release %s is in use", active.version)
        if active is not None and self.stands_in_for not in (None, stood_in_for):
            log.warning("release %s stands in for %s", active.version, self.stands_in_for)

    def follow(self, now: datetime) -> None:
        """Take up the items that were put since the last call. For one thread at a time."""
        self._catalogue.follow(now)
        self._pin()

    def _pointer(self) -> Pointer:
        """The pointer; where it is damaged, who asks is told so while nothing answers."""
        try:
            pointer = self.store.pointer()
        except CorruptRelease as error:
            self._unreadable = str(error)
            raise
        self._unreadable = None
        return pointer

    def _pin(self) -> None:
        """Pair the releases with the catalogue as it is, unless they are paired already."""
        with self._pinning:
            catalogue = self._catalogue.current
            if self._active is not None:
                self._pinned = _paired(self._active, catalogue, self._pinned)
            self._beside = {
                version: _paired(release, catalogue, self._beside.get(version))
                for version, release in self._others.items()
            }

    def _to_serve(self, pointer: Pointer, held: dict[str, LoadedRelease]) -> LoadedRelease | None:
        """The active release, or what stands in for it; `held` are loaded, and get what is."""
        for version in self._in_turn(pointer):
            release = self._hold(version, held)
            if release and (version == pointer.active or release.manifest.promoted):
                return release
        return self._active

    def _in_turn(self, pointer: Pointer) -> Iterator[str]:
        """The active release and those that may stand in for it, the best first."""
        if pointer.active is None:
            return
        yield pointer.active
        in_use = [self._active.version] if self._active else []
        for version in (*in_use, *reversed(pointer.history)):
            if version not in pointer.withdrawn:
                yield version

    def _hold(self, version: str, held: dict[str, LoadedRelease]) -> LoadedRelease | None:
        """A release by its version, loaded unless it is held; None for one that cannot be."""
        if version not in held and (loaded := self._loaded(version)):
            held[version] = loaded
        return held.get(version)

    def _attempt(self, what: str, act: Callable[[], T]) -> T | None:
        if self._backoff.waits(what):
            return None
        try:
            return act()
        except Exception:  # whatever is wrong with the new one, the old one still answers
            pause_s = self._backoff.failed(what)
            log.exception("%s was not taken over; trying again in %.0f s", what, pause_s)
            self._metrics.refresh_failures.labels(what.split()[0]).inc()
            return None

    def _loaded(self, version: str) -> LoadedRelease | None:
        return self._attempt(
            f"release {version}",
            lambda: LoadedRelease.load(
                self.store.load(version), encoder=self._encoder, ranker=self._ranker
            ),
        )


def _paired(release: LoadedRelease, catalogue: Catalogue, before: Pinned | None) -> Pinned:
    if before and before.release is release and before.catalogue is catalogue:
        return before
    return Pinned.of(release, catalogue, before)
