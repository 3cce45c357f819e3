"""Releases as serving holds them: loaded whole, checked, paired with a state of the catalogue."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from nearline import bundle
from nearline.alike import Alike
from nearline.content import ContentVectors
from nearline.encoder import UserEncoder
from nearline.errors import CorruptRelease, ReleaseError
from nearline.given import GivenVectors
from nearline.highest import highest
from nearline.lenders import Lenders
from nearline.releases import Release, ReleaseManifest
from nearline.sequence import ModelInput, Vocabulary, pad
from serving.catalogue import Catalogue
from serving.newcomers import Newcomers
from serving.ranker import Ranker, Use
from serving.shelf import Shelf

if TYPE_CHECKING:
    from nearline.item_index import ItemIndex

Encoder = Literal["full", "compressed"]


@dataclass(frozen=True, eq=False)
class LoadedRelease:
    """A release in memory. Immutable; safe to use from many threads.

    `matrix` is float32 (items, dim) and lies in the file, `popularity` float32 (items,).
    """

    manifest: ReleaseManifest
    encoder: Encoder
    vocabulary: Vocabulary
    matrix: np.ndarray
    popularity: np.ndarray
    length: int
    user_encoder: UserEncoder
    content: ContentVectors | None = None
    alike: Alike | None = None
    ranker: Ranker | None = None
    index: "ItemIndex | None" = None

    @classmethod
    def load(
        cls, release: Release, *, encoder: Encoder = "full", ranker: Use = "off"
    ) -> "LoadedRelease":
        """Verify a release and load it; `encoder` says which of its encoders, `ranker` which use
        is made of its ranker.

        Raises CorruptRelease when a file lacks, was changed, or does not fit the others.
        """
        release.verify()
        try:
            loaded = replace(_read(release, encoder), ranker=Ranker.of(release, ranker))
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
        return self.user_encoder(pad(inputs, self.length))

    def top(
        self, vector: np.ndarray, limit: int, allowed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The `limit` allowed rows nearest to a vector, best first; exact without an index.

        `vector` is float32 (dim,), `allowed` bool (items,). Returns rows int64 and scores float32,
        as many as are allowed. Equal scores come in row order.
        """
        if self.index is not None:
            return self.index.top(vector, limit, allowed)
        # Not `@`: that wakes BLAS threads in every request, which then wait for each other.
        return best(np.vecdot(self.matrix, vector), limit, allowed)

    def popular(self, limit: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The most popular allowed rows, as `top` gives them."""
        return best(self.popularity, limit, allowed)

    def similarity(self, item_ids: Sequence[str], others: Sequence[str]) -> np.ndarray:
        """The cosine of items that the release knows, float32 (items, others)."""
        rows, columns = ([self.vocabulary.item_row[i] for i in ids] for ids in (item_ids, others))
        similarity: np.ndarray = self.matrix[rows] @ self.matrix[columns].T
        return similarity


def best(scores: np.ndarray, limit: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the `limit` highest scores, float32 (items,), among those allowed, and these."""
    rows = np.flatnonzero(allowed)
    found = scores[rows]
    order = highest(found, limit)
    return rows[order], found[order]


def _read(release: Release, encoder: Encoder) -> LoadedRelease:
    file = bundle.ENCODERS[encoder]
    if file not in release.manifest.files:
        raise CorruptRelease(
            f"release {release.version} has no {encoder} encoder ({file}): set NEARLINE_ENCODER to "
            "the other one"
        )
    user_encoder = UserEncoder.open(release.path, file)
    return LoadedRelease(
        manifest=release.manifest,
        encoder=encoder,
        vocabulary=bundle.read_vocabulary(release.path),
        matrix=user_encoder.matrix,
        popularity=np.load(release.path / bundle.POPULARITY),
        length=int(json.loads((release.path / bundle.CONFIG).read_text())["length"]),
        user_encoder=user_encoder,
        content=_content(release, user_encoder),
        alike=Alike.read(release.path) if bundle.ALIKE in release.manifest.files else None,
        index=_index(release, user_encoder.matrix),
    )


def _content(release: Release, items: UserEncoder) -> ContentVectors | None:
    files = release.manifest.files
    if not {bundle.WORD_VECTORS, bundle.LENDERS} <= files.keys():
        return None
    table = np.load(release.path / bundle.WORD_VECTORS, mmap_mode="r")
    lenders = Lenders.read(release.path / bundle.LENDERS)
    given = GivenVectors.read(release.path) if bundle.GIVEN in files else None
    return ContentVectors(table, items.matrix, items.norms, lenders, given)


def _index(release: Release, matrix: np.ndarray) -> "ItemIndex | None":
    if bundle.ITEM_INDEX not in release.manifest.files:
        return None
    from nearline.item_index import ItemIndex

    return ItemIndex.read(release.path / bundle.ITEM_INDEX, matrix)


def _check(loaded: LoadedRelease) -> None:
    """Raise CorruptRelease unless ids, matrix, popularity and encoder fit; warms the encoder."""
    items, norms = len(loaded.vocabulary.item_ids), loaded.user_encoder.norms
    shapes = (loaded.matrix.shape[:1], norms.shape, loaded.popularity.shape)
    if not items or any(shape != (items,) for shape in shapes):
        raise CorruptRelease(
            f"release {loaded.version}: {items} item ids, but a matrix of {shapes[0]}, norms of "
            f"{shapes[1]} and popularity of {shapes[2]} items; roll back"
        )
    if loaded.content:
        _check_content(loaded, loaded.content)
    alike = loaded.alike
    if alike and not len(alike.rows) == len(alike.shares) == items:
        raise CorruptRelease(
            f"release {loaded.version}: {len(alike.rows)} items, not {items}, are like others; "
            "roll back"
        )
    one = np.ones(1, dtype=np.int64)
    vector = loaded.encode([ModelInput(one, one, one, one, one)])
    if vector.shape != (1, loaded.dim) or not np.isfinite(vector).all():
        raise CorruptRelease(
            f"release {loaded.version}: its encoder gives {vector.dtype} {vector.shape}, not a "
            f"finite vector of {loaded.dim}; roll back"
        )


def _check_content(loaded: LoadedRelease, content: ContentVectors) -> None:
    """Raise CorruptRelease unless words and given vectors fit the items."""
    items, words = len(loaded.vocabulary.item_ids), content.table.shape[1:]
    if (words, content.lenders.lengths.shape) != ((loaded.dim,), (items,)):
        raise CorruptRelease(
            f"release {loaded.version}: its words have vectors of {words}, its "
            f"items of {loaded.dim}; {content.lenders.lengths.shape} lend of {items}; roll back"
        )
    given = content.given
    if given and (given.projection.shape, given.vectors.shape) != (
        (sum(given.widths), loaded.dim),
        (len(given.items), sum(given.widths)),
    ):
        raise CorruptRelease(
            f"release {loaded.version}: given vectors of {given.widths} numbers, a projection of "
            f"{given.projection.shape} and lenders of {given.vectors.shape} do not fit; roll back"
        )


@dataclass(frozen=True, eq=False)
class Pinned:
    """What one request answers from: a release and the catalogue, which go together.

    `newcomers` are items that the release does not know; none where it knows no content either.
    """

    release: LoadedRelease
    catalogue: Catalogue
    shelf: Shelf
    newcomers: Newcomers = field(default_factory=Newcomers)

    @classmethod
    def of(
        cls, release: LoadedRelease, catalogue: Catalogue, before: "Pinned | None" = None
    ) -> "Pinned":
        """A release with a state of the catalogue; `before` is the pair that it follows."""
        shelf = Shelf(release.vocabulary, catalogue, before=before.shelf if before else None)
        if release.content is None:
            return cls(release, catalogue, shelf)
        known = before.newcomers if before and before.release is release else None
        return cls(release, catalogue, shelf, Newcomers.of(release.content, shelf.new, known))

    def vector(self, item_id: str) -> np.ndarray | None:
        """An item's vector, float32 (dim,): the release's, or one of its content; None without."""
        row = self.release.vocabulary.item_row.get(item_id)
        return self.newcomers.vectors.get(item_id) if row is None else self.release.matrix[row]
