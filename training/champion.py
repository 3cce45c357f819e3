"""What the active release's night answered to its exam, laid beside what a new night answers.

A release has learned the events that its night was examined on, and its hours those since: asked
again, it would only remember. So each release holds what its night answered before it learned them,
and hours carry that on. Two nights are compared on the events that both were asked for; where these
are too few, as on a site that is young, on those that came after what the older night has learned.
"""

import logging
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from nearline import bundle as names
from nearline.errors import ReleaseError, UnknownRelease
from nearline.releases import Release, ReleaseStore
from nearline.sequence import Vocabulary, microseconds
from training.bundle import read_bundle, with_items
from training.dataset import Interactions
from training.evaluation import Evaluation, measure
from training.exam import Exam

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Champion:
    """The active release, the night that its line began with, and that night's answers.

    `night` is the release itself where its night is gone; `answers` is as `kept_answers` makes it,
    None where the release holds none.
    """

    version: str
    night: Release
    answers: np.ndarray | None

    @classmethod
    def active(cls) -> "Champion | None":
        """The one that is to be beaten; None where nothing is active yet."""
        store = ReleaseStore.open()
        version = store.active()
        if version is None:
            return None
        release = store.load(version)
        return cls(version, _night_of(store, release), _read_answers(release))

    @property
    def night_end(self) -> datetime:
        """Where the data of its night end."""
        return self.night.manifest.window_end

    def beside(self, found: Evaluation, asked: np.ndarray) -> tuple[Evaluation, Evaluation]:
        """A night's answers and the champion's, to what both were asked; `asked` are its keys."""
        theirs = np.zeros((0, 2), np.int64) if self.answers is None else self.answers
        _, here, there = np.intersect1d(asked, theirs[:, 0], return_indices=True)
        ours = found.only(here)
        return ours, replace(ours, ranks=theirs[there, 1])

    def asked_since(
        self, found: Evaluation, exam: Exam, item_ids: tuple[str, ...], catalogue: pa.Table
    ) -> tuple[Evaluation, Evaluation]:
        """A night's answers and the champion's night's, to what came after that had learned.

        None of either where that night cannot be read.
        """
        later = exam.data.times[exam.targets] >= microseconds(self.night_end)
        ours, targets = found.only(later), exam.targets[later]
        try:
            # A model draws its first weights: what the night learns next must not depend on it.
            with torch.random.fork_rng(devices=[]):
                model = with_items(read_bundle(self.night), item_ids, catalogue)
        except ReleaseError as error:  # a damaged champion must not keep a new one from being made
            log.warning("the night of the active release %s is not asked: %s", self.version, error)
            nothing = found.only(np.zeros_like(later))
            return nothing, nothing
        return ours, replace(ours, ranks=measure(model, exam.data, targets).ranks)


def keys(data: Interactions, targets: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Numbers that tell targets from one another in any night: int64 (targets,).

    A user's first touch of an item is a target once, so that these two say which one it is.
    """
    users = np.array(data.user_ids, dtype=object)[data.users[targets]]
    items = np.array(vocabulary.item_ids, dtype=object)[data.items[targets] - 1]
    pairs = pd.DataFrame({"user": users, "item": items})
    return pd.util.hash_pandas_object(pairs, index=False).to_numpy().view(np.int64)


def kept_answers(found: Evaluation, asked: np.ndarray) -> np.ndarray:
    """What a release holds of an exam: the key and the rank of each target, int64 (targets, 2)."""
    return np.column_stack([asked, found.ranks]).astype(np.int64)


def _night_of(store: ReleaseStore, release: Release) -> Release:
    """A release's night; the release itself where that night is gone."""
    try:
        return store.load(release.manifest.base or release.version)
    except UnknownRelease:
        return release


def _read_answers(release: Release) -> np.ndarray | None:
    """A damaged champion must not keep a new one from being made."""
    if names.ANSWERS not in release.manifest.files:
        return None
    try:
        answers: np.ndarray = np.load(release.path / names.ANSWERS)
        return answers
    except (OSError, EOFError, ValueError) as error:
        log.warning("not compared with the active release %s: %s", release.version, error)
        return None
