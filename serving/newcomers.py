"""Items that a release does not know yet, by the vectors that it makes of their content."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from nearline.content import ContentVectors
from serving.catalogue import Entry


@dataclass(frozen=True, eq=False)
class Newcomers:
    """The newest of these items and their vectors, float32 (dim,). Safe to read from threads."""

    entries: Sequence[Entry] = ()
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(
        cls, content: ContentVectors, entries: Sequence[Entry], before: "Newcomers | None" = None
    ) -> "Newcomers":
        """`before` are those of the same release a moment ago: an item's content is read once."""
        known = {entry.item_id: entry for entry in before.entries} if before else {}
        new = [entry for entry in entries if not _same(known.get(entry.item_id), entry)]
        made = {e.item_id: v for e, v in zip(new, content.of(new), strict=True)} if new else {}
        found = {**(before.vectors if before else {}), **made}
        return cls(entries, {entry.item_id: found[entry.item_id] for entry in entries})

    def nearest(self, vector: np.ndarray) -> Iterator[tuple[str, float]]:
        """Items and their cosines with a vector of the release, the nearest first."""
        if not self.entries:
            return
        scores = np.vecdot(self._matrix, vector)
        for at in np.argsort(-scores, kind="stable"):
            yield self.entries[at].item_id, float(scores[at])

    @cached_property
    def _matrix(self) -> np.ndarray:
        return np.stack(list(self.vectors.values()))


def _same(before: Entry | None, now: Entry) -> bool:
    """Whether an item says what it said; given vectors that are not read are as they were."""
    return before == now and (now.given is None or before.given == now.given)
