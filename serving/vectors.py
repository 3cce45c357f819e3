"""The vector of a user: a pushed one of the same release, or the sequence encoded now."""

from collections import OrderedDict
from datetime import datetime
from threading import Lock

import numpy as np

from nearline.sequence import ModelInput, microseconds, model_input
from serving.metrics import Metrics
from serving.reasons import Source
from serving.release import LoadedRelease
from serving.users import UserState

_MOST_VECTORS = 20_000


class UserVectors:
    """Vectors of users, those encoded lately kept in memory. Safe to use from many threads.

    A vector is kept under its release and all that the encoder read: what is remembered is what
    would be computed again. An event, a new release or time that passes (gaps are read in powers
    of two seconds) each give another key.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._kept: OrderedDict[tuple[str, bytes], np.ndarray] = OrderedDict()
        self._lock = Lock()

    def of(
        self, release: LoadedRelease, state: UserState, now: datetime
    ) -> tuple[np.ndarray | None, Source]:
        """The user's vector, float32 (dim,), and its source; None if the release knows nothing."""
        stored = state.stored
        if stored is not None and stored.release == release.version:
            self._count("stored")
            return stored.vector, "stored"
        if stored is not None:
            self._count("stored_other_release")
        elif state.vector is not None:
            self._count("stored_outdated")
        inputs = model_input(
            state.history, release.vocabulary, now_us=microseconds(now), length=release.length
        )
        return (self._encoded(release, inputs) if len(inputs.items) else None), "live"

    def _encoded(self, release: LoadedRelease, inputs: ModelInput) -> np.ndarray:
        key = release.version, b"".join(column.tobytes() for column in inputs)
        with self._lock:
            vector = self._kept.get(key)
            if vector is not None:
                self._kept.move_to_end(key)
        self._count("encoded" if vector is None else "remembered")
        if vector is None:
            vector = release.encode([inputs])[0]
            with self._lock:
                self._kept[key] = vector
                while len(self._kept) > _MOST_VECTORS:
                    self._kept.popitem(last=False)
        return vector

    def _count(self, outcome: str) -> None:
        self._metrics.user_vectors.labels(outcome).inc()
