"""Releases as serving holds them: loaded whole, checked, and swapped by one reference."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from nearline import bundle
from nearline.errors import CorruptRelease, NotReady, ReleaseError
from nearline.releases import Release, ReleaseManifest, ReleaseStore
from nearline.sequence import ModelInput, Vocabulary, pad
from nearline.settings import settings
from serving.catalogue import Catalogue, CatalogueFile
from serving.metrics import Metrics

if TYPE_CHECKING:
    import onnxruntime

log = logging.getLogger(__name__)

T = TypeVar("T")
Encoder = Literal["full", "compressed"]
NOBODY = -1
"""Stands in `top` for a row that there is not."""

_FILES: dict[str, str] = {"full": bundle.ENCODER, "compressed": bundle.ENCODER_COMPRESSED}
_RETRY_S = 60.0


@dataclass(frozen=True, eq=False)
class LoadedRelease:
    """A release in memory. Immutable; safe to use from many threads.

    `matrix` is float32 (items, dim) and lies in the file, `popularity` float32 (items,),
    `available` bool (items,): which rows may be recommended.
    """

    manifest: ReleaseManifest
    encoder: Encoder
    vocabulary: Vocabulary
    matrix: np.ndarray
    popularity: np.ndarray
    length: int
    session: "onnxruntime.InferenceSession"
    available: np.ndarray

    @classmethod
    def load(cls, release: Release, *, encoder: Encoder = "full") -> "LoadedRelease":
        """Verify a release and load it; `encoder` says which of its encoders.

        Raises CorruptRelease when a file lacks, was changed, or does not fit the others.
        """
        release.verify()
        try:
            loaded = _read(release, encoder)
            _check(loaded)
        except ReleaseError:
            raise
        except Exception as error:  # onnxruntime's errors share no class below Exception
            raise CorruptRelease(
                f"release {release.version} cannot be loaded: {type(error).__name__}: {error}; "
                "roll back"
            ) from error
        return loaded

    @property
    def version(self) -> str:
        return self.manifest.version

    @property
    def dim(self) -> int:
        """Length of a user or item vector."""
        return int(self.matrix.shape[1])

    def encode(self, inputs: Sequence[ModelInput]) -> np.ndarray:
        """User vectors, float32 (batch, dim), of unpadded inputs with at least one event each."""
        padded = pad(inputs, self.length)
        vectors: np.ndarray = self.session.run(["user"], padded._asdict())[0]
        return vectors

    def top(
        self, user_vectors: np.ndarray, limit: int, exclude: Sequence[Sequence[int]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The `limit` nearest available rows of each user, best first; exact.

        `user_vectors` is float32 (batch, dim), `exclude` holds each user's rows to leave out.
        Returns rows int64 and scores float32, both (batch, min(limit, items)); where fewer items
        are left, rows end with NOBODY and scores with -inf. Equal scores come in row order.
        """
        scores = user_vectors @ self.matrix.T
        return self._best(scores, limit, exclude)

    def popular(self, limit: int, exclude: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The most popular available rows, as `top` gives them for one user."""
        scores = np.array(self.popularity, dtype=np.float32)[None, :]
        rows, best = self._best(scores, limit, [exclude])
        return rows[0], best[0]

    def _best(
        self, scores: np.ndarray, limit: int, exclude: Sequence[Sequence[int]]
    ) -> tuple[np.ndarray, np.ndarray]:
        scores[:, ~self.available] = -np.inf
        for row, excluded in zip(scores, exclude, strict=True):
            row[list(excluded)] = -np.inf
        limit = min(limit, scores.shape[1])
        rows = np.argpartition(-scores, limit - 1, axis=1)[:, :limit]
        best = np.take_along_axis(scores, rows, axis=1)
        order = np.lexsort((rows, -best), axis=1)
        rows, best = (np.take_along_axis(part, order, axis=1) for part in (rows, best))
        return np.where(np.isneginf(best), NOBODY, rows), best

    def limited_to(self, catalogue: Catalogue) -> "LoadedRelease":
        """The same release, recommending only what the catalogue has available."""
        allowed = np.fromiter(
            map(catalogue.recommendable, self.vocabulary.item_ids),
            dtype=bool,
            count=len(self.matrix),
        )
        return replace(self, available=allowed)


def _read(release: Release, encoder: Encoder) -> LoadedRelease:
    file = release.path / _FILES[encoder]
    if not file.is_file():
        raise CorruptRelease(
            f"release {release.version} has no {encoder} encoder ({file.name}): set "
            f"NEARLINE_ENCODER to the other one"
        )
    matrix = np.asarray(bundle.read_matrix(release.path))
    return LoadedRelease(
        manifest=release.manifest,
        encoder=encoder,
        vocabulary=bundle.read_vocabulary(release.path),
        matrix=matrix,
        popularity=np.load(release.path / bundle.POPULARITY),
        length=int(json.loads((release.path / bundle.CONFIG).read_text())["length"]),
        session=_session(file),
        available=np.ones(len(matrix), dtype=bool),
    )


def _session(file: Path) -> "onnxruntime.InferenceSession":
    import onnxruntime

    # Requests already run side by side, one thread each; a pool in every session only adds waiting.
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _check(loaded: LoadedRelease) -> None:
    """Raise CorruptRelease unless ids, matrix, popularity and encoder fit; warms the encoder."""
    items = len(loaded.vocabulary.item_ids)
    shapes = (loaded.matrix.shape[:1], loaded.popularity.shape)
    if not items or any(shape != (items,) for shape in shapes):
        raise CorruptRelease(
            f"release {loaded.version}: {items} item ids, but a matrix of {shapes[0]} and "
            f"popularity of {shapes[1]} items; roll back"
        )
    one = np.ones(1, dtype=np.int64)
    vector = loaded.encode([ModelInput(one, one, one)])
    if vector.shape != (1, loaded.dim) or not np.isfinite(vector).all():
        raise CorruptRelease(
            f"release {loaded.version}: its encoder gives {vector.dtype} {vector.shape}, not a "
            f"finite vector of {loaded.dim}; roll back"
        )


@dataclass(frozen=True, eq=False)
class Pinned:
    """What one request answers from: a release and the catalogue, which go together."""

    release: LoadedRelease
    catalogue: Catalogue


class ActiveRelease:
    """Follows the release pointer and the catalogue, and gives requests what is current.

    A new release is loaded beside the old one and takes its place by one assignment. One that
    cannot be loaded is logged, counted, and leaves the old one in place; it is tried again after
    a minute, or when the pointer names another.
    """

    def __init__(
        self, store: ReleaseStore, catalogue: CatalogueFile, metrics: Metrics, *, encoder: Encoder
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._metrics = metrics
        self._encoder: Encoder = encoder
        self._pinned: Pinned | None = None
        self._backoff = _Backoff()

    @classmethod
    def open(cls, catalogue: CatalogueFile, metrics: Metrics) -> "ActiveRelease":
        """The active release of the store that the settings name; nothing is loaded yet."""
        return cls(ReleaseStore.open(), catalogue, metrics, encoder=settings().encoder)

    def pin(self) -> Pinned:
        """What a request uses, first line to last. Raises NotReady without a release."""
        pinned = self._pinned
        if pinned is None:
            raise NotReady(
                "no release is active: train one (`nearline train`), or see `nearline releases`"
            )
        return pinned

    def refresh(self) -> None:
        """Take over what has changed since the last call. One thread calls this."""
        catalogue_changed = self._attempt("catalogue", self._catalogue.refresh)
        version = self._store.active()
        current = self._pinned
        loaded = current.release if current and catalogue_changed else None
        if version is not None and (current is None or current.release.version != version):
            loaded = self._attempt(f"release {version}", lambda: self._load(version)) or loaded
        if loaded is not None:
            catalogue = self._catalogue.current
            self._pinned = Pinned(loaded.limited_to(catalogue), catalogue)

    def _attempt(self, what: str, act: Callable[[], T]) -> T | None:
        if self._backoff.waits(what):
            return None
        try:
            return act()
        except Exception:  # whatever is wrong with the new one, the old one still answers
            log.exception("%s was not taken over; trying again in %.0f s", what, _RETRY_S)
            self._metrics.refresh_failures.labels(what.split()[0]).inc()
            self._backoff.start(what)
            return None

    def _load(self, version: str) -> LoadedRelease:
        loaded = LoadedRelease.load(self._store.load(version), encoder=self._encoder)
        self._metrics.release_loaded(loaded.manifest, loaded.encoder)
        log.info("release %s is in use", version)
        return loaded


class _Backoff:
    """What failed a moment ago is not tried again at once."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def waits(self, what: str) -> bool:
        """Whether `what` failed less than a minute ago."""
        return time.monotonic() < self._until.get(what, 0.0)

    def start(self, what: str) -> None:
        """`what` has failed now."""
        self._until[what] = time.monotonic() + _RETRY_S
