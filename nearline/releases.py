"""The release store: immutable bundles, and one pointer to the active one.

`<root>/<version>/` holds a release's files and `manifest.json` with their checksums;
`<root>/active.json` names the active version. A release is staged in a folder beside, and becomes
visible by one rename, once all of it is on disk. The pointer moves by one atomic replace, under a
lock, so that two runs cannot both promote. What a killed process left staged is removed by whoever
stages next.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from nearline.errors import CorruptRelease, Overtaken, ReleaseError, ReleaseRefused, UnknownRelease
from nearline.pointer import Pointer
from nearline.replacing import to_disk
from nearline.settings import settings
from nearline.windows import Window

log = logging.getLogger(__name__)

Kind = Literal["nightly", "hourly"]

OF_PARENT = "parent_"
"""What the names of an hourly release's figures begin with that tell how well its parent foresaw
the new hours. Those of RETENTION tell how well the release foresees what came before them."""

RETENTION = "retention_"

_MANIFEST = "manifest.json"
_POINTER = "active.json"
_STAGED = ".staged-"
_GONE = ".gone-"


class Drift(BaseModel):
    """How far a nearline release is from the night that its line began with, beside the limits.

    `changed` is the mean share of the night's top 10 that is shown no more, over `users` users, and
    `bound` the most that it may be; `hours` have passed between the ends of their data, of at most
    `max_hours`. `asked_at_hours` is told by older releases only: when their line asked for a night.
    """

    model_config = ConfigDict(extra="forbid")

    changed: float
    bound: float
    users: int
    hours: float
    max_hours: int
    asked_at_hours: float | None = None

    @property
    def past(self) -> bool:
        """Whether it is past a limit: the line is to have another night."""
        return self.changed > self.bound or self.hours >= self.max_hours

    def __str__(self) -> str:
        return (
            f"{self.changed:.1%} of the night's lists changed (at most {self.bound:.0%}), "
            f"{self.hours:g} h after it (at most {self.max_hours} h)"
        )


class Ranking(BaseModel):
    """How a ranker orders candidates: NDCG@10, beside that of the encoder's own order and of the
    fused one.

    `low` and `high` bound its lead over the encoder (95 %, bootstrapped over users) on `events`
    that neither had learned. `wins` says whether serving is to use it, `reason` why or why not.
    """

    model_config = ConfigDict(extra="forbid")

    wins: bool = False
    reason: str
    ndcg: float | None = None
    encoder_ndcg: float | None = None
    fused_ndcg: float | None = None
    low: float | None = None
    high: float | None = None
    events: int = 0


class ReleaseManifest(BaseModel):
    """What a release is, where it comes from, and how it was judged.

    `parent` is the release it started from, `base` the nightly release of its line, `promoted` the
    gate's verdict with its `reasons`, `window` the data it learned last, `files` name → sha256.
    `sha256` is that of the manifest without itself; older ones have none.
    `metrics` are a night's own; an hour has those that begin with OF_PARENT or RETENTION.
    `last_hour` is the checksum of the events of the window's last hour as they were learned; empty
    for an hour without any, None where it is not known. `ranking` judges the ranker of its night.
    """

    model_config = ConfigDict(extra="forbid")

    version: str = ""
    kind: Kind
    parent: str | None
    base: str | None
    window_start: datetime
    window_end: datetime
    last_hour: str | None = None
    drift: Drift | None = None
    ranking: Ranking | None = None
    promoted: bool
    reasons: list[str]
    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]] = Field(default_factory=dict)
    lineage: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    sha256: str = ""

    def checksum(self) -> str:
        """What `sha256` must be."""
        return hashlib.sha256(self.model_dump_json(exclude={"sha256"}).encode()).hexdigest()

    @property
    def follows(self) -> str | None:
        """The release that must still be active when this one goes live: an hourly one's parent."""
        return self.parent if self.kind == "hourly" else None

    @property
    def window(self) -> Window:
        """The data window that this release learned last."""
        return Window(self.window_start, self.window_end)


@dataclass(frozen=True)
class Release:
    """A published release: its folder and its manifest."""

    path: Path
    manifest: ReleaseManifest

    @property
    def version(self) -> str:
        return self.manifest.version

    def verify(self) -> None:
        """Raise CorruptRelease unless every file is there with its checksum."""
        for name, expected in self.manifest.files.items():
            file = self.path / name
            if not file.is_file():
                raise CorruptRelease(f"release {self.version}: {name} is missing; roll back")
            if _sha256(file) != expected:
                raise CorruptRelease(f"release {self.version}: {name} was changed; roll back")


class ReleaseStore:
    """All releases under one root."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    @classmethod
    def open(cls) -> "ReleaseStore":
        """The store that the settings name."""
        return cls(settings().releases)

    @contextmanager
    def stage(self) -> Iterator[Path]:
        """A folder to write a release's files to; what is not published is removed."""
        with self._alone():
            self._sweep()
            folder = Path(tempfile.mkdtemp(prefix=_STAGED, dir=self.root))
            held = _hold(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)

    def publish(self, staged: Path, manifest: ReleaseManifest) -> str:
        """Make a staged release visible, and return its version.

        The version is the end of its window, its kind and a hash of its content and of whether the
        gate let it pass: the same publishes once, however often it is tried, and another verdict on
        the same files is another release. Each stays as it was published.
        """
        files = {p.name: _sha256(p) for p in sorted(staged.iterdir()) if p.name != _MANIFEST}
        told = [files, manifest.parent, manifest.promoted]
        content = json.dumps(told, sort_keys=True).encode()
        digest = hashlib.sha256(content).hexdigest()[:8]
        version = f"{manifest.window_end:%Y%m%dT%H}-{manifest.kind}-{digest}"
        base = version if manifest.kind == "nightly" else manifest.base
        final = manifest.model_copy(update={"version": version, "files": files, "base": base})
        final = final.model_copy(update={"sha256": final.checksum()})
        target = self.root / version
        (staged / _MANIFEST).write_text(final.model_dump_json(indent=2))
        for path in (*staged.iterdir(), staged):
            to_disk(path)
        with self._alone():
            if not target.exists():
                os.replace(staged, target)
            to_disk(self.root)  # before the pointer can name it
        return version

    def load(self, version: str) -> Release:
        """A release by its version. Raises UnknownRelease or CorruptRelease."""
        path = self.root / version
        if version.startswith(".") or not (path / _MANIFEST).is_file():
            raise UnknownRelease(f"no release {version!r}: see `nearline releases list`")
        try:
            manifest = ReleaseManifest.model_validate_json((path / _MANIFEST).read_text())
        except ValueError as error:
            raise CorruptRelease(
                f"release {version}: its manifest is unreadable; roll back to another one of "
                "`nearline releases list`"
            ) from error
        if manifest.sha256 and manifest.sha256 != manifest.checksum():
            raise CorruptRelease(f"release {version}: its manifest was changed; roll back")
        return Release(path, _named_as_now(manifest))

    def manifests(self) -> list[ReleaseManifest]:
        """The manifests of all releases, oldest window first; the log tells of corrupt ones."""
        versions = sorted(p.parent.name for p in self.root.glob(f"[!.]*/{_MANIFEST}"))
        return [found for version in versions if (found := self._manifest(version))]

    def _manifest(self, version: str) -> ReleaseManifest | None:
        try:
            return self.load(version).manifest
        except CorruptRelease as error:
            log.warning("%s", error)
            return None

    def active(self) -> str | None:
        """The active version, if there is one."""
        return self.pointer().active

    def previous(self) -> str | None:
        """The version that was active before, if there was one."""
        return next(reversed(self.pointer().history), None)

    def pointer(self) -> Pointer:
        """The active version, those before it, and those that were rolled back.

        Raises CorruptRelease where the file that tells is damaged; so does all that asks for it.
        """
        return Pointer.read(self.root / _POINTER)

    def promote(self, version: str) -> None:
        """Move the pointer to `version`.

        An hourly release goes live only while its parent is still the active one, a night only over
        older ones: a release that was overtaken raises Overtaken. One that the gate refused or that
        was rolled back raises ReleaseRefused. Promoting the active version again changes nothing.
        """
        release = self._passed(version)
        with self._alone():
            pointer = self.pointer()
            active = pointer.active
            if active == version:
                return
            if version in pointer.withdrawn:
                raise ReleaseRefused(
                    f"{version} was rolled back: `nearline releases rollback {version}` activates "
                    "it again"
                )
            parent = release.manifest.follows
            if parent is not None and active != parent:
                raise Overtaken(
                    f"{version} was made from {parent}, but {active} is active now: "
                    "run the fine-tune again on the new line"
                )
            if active is not None and release.manifest.kind == "nightly":
                self._require_newest_night(release.manifest, active)
            pointer.promoted(version).write(self.root / _POINTER)

    def _passed(self, version: str) -> Release:
        """A whole release that the gate let pass. Raises ReleaseError for any other."""
        release = self.load(version)
        if not release.manifest.promoted:
            raise ReleaseRefused(
                f"the gate refused {version}: {'; '.join(release.manifest.reasons)}"
            )
        release.verify()
        return release

    def _require_newest_night(self, night: ReleaseManifest, active: str) -> None:
        """Raise Overtaken for a night that ends before the one that the active line began with."""
        try:
            live = self.load(self.load(active).manifest.base or active).manifest
        except ReleaseError:  # what is damaged must not keep a new one from going live
            return
        if night.window_end < live.window_end:
            raise Overtaken(
                f"{night.version} ends before the night {live.version}, which is live: `nearline "
                f"releases rollback {night.version}` activates it all the same"
            )

    def rollback(self, version: str | None = None) -> str:
        """Move the pointer back, to `version` or to the one before; return the new active one.

        It holds until another release is promoted: those that were active since are not, whoever
        tries again, until a rollback names them, which brings back what led to them too. One that
        names a version also writes a damaged pointer anew, which knows of no other then. Raises
        ReleaseRefused where there is nothing to return to, or the gate refused it.
        """
        with self._alone():
            target = version or self.previous()
            if target is None:
                raise ReleaseRefused("there is no earlier release to roll back to")
            self._passed(target)
            self._pointer_or_none().rolled_back(target).write(self.root / _POINTER)
            return target

    def _pointer_or_none(self) -> Pointer:
        """The pointer; one to nothing where it is damaged."""
        try:
            return self.pointer()
        except CorruptRelease as error:
            log.warning("%s", error)
            return Pointer()

    def prune(self, *, keep: int, used: Collection[str] = ()) -> list[str]:
        """Remove releases, and return them: all but the newest `keep` and those still of use.

        Of use are the active release, its ancestors, the night that its line began with, the one
        that a rollback would return to, and what else is `used`. None is removed while the active
        one cannot be read: nobody can tell what is of use to it.
        """
        with self._alone():
            self._sweep()
            manifests = {manifest.version: manifest for manifest in self.manifests()}
            active = ancestor = self.active()
            if active is not None and active not in manifests:
                log.warning("no release is removed: %s is active and cannot be read", active)
                return []
            wanted = {active, self.previous(), *used, *list(manifests)[-keep:]}
            while ancestor in manifests:
                wanted |= {ancestor, manifests[ancestor].base}
                ancestor = manifests[ancestor].parent
            gone = [version for version in manifests if version not in wanted]
            if gone:
                self.pointer().without(gone).write(self.root / _POINTER)
            for version in gone:
                hidden = self.root / f"{_GONE}{version}"
                os.replace(self.root / version, hidden)
                shutil.rmtree(hidden)
            return gone

    def _sweep(self) -> None:
        """Remove what killed processes left: folders staged by nobody, and half-removed ones."""
        for folder in self.root.glob(f"{_STAGED}*"):
            # Held by whoever stages there; gone where that one has just ended.
            with suppress(BlockingIOError, FileNotFoundError):
                held = _hold(folder)
                shutil.rmtree(folder, ignore_errors=True)
                os.close(held)
        for folder in self.root.glob(f"{_GONE}*"):
            shutil.rmtree(folder)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _named_as_now(manifest: ReleaseManifest) -> ReleaseManifest:
    """Older hourly releases told their parent's figures without saying whose they are."""
    if manifest.kind == "nightly":
        return manifest
    metrics = {
        name if name.startswith((OF_PARENT, RETENTION)) else OF_PARENT + name: value
        for name, value in manifest.metrics.items()
    }
    return manifest.model_copy(update={"metrics": metrics})


def _hold(folder: Path) -> int:
    """A descriptor that holds a folder for as long as it is open, at most until this process ends.

    Raises BlockingIOError where another holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
