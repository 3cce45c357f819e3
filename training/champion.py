"""What the active release's night answered to its exam, laid beside what a new night answers.

A release has learned the events that its night was examined on, and its hours those since: asked
again, it would only remember. So each release holds what its night answered before it learned them,
and hours carry that on. Two nights are compared on the events that both were asked for; where these
are too few, as on a site that is young, on those that came after what the older night has learned.
"""

import logging
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from nearline import bundle as names
from nearline.errors import ReleaseError
from nearline.releases import Release, ReleaseStore
from nearline.schema import MODALITIES
from nearline.sequence import Vocabulary, microseconds
from training import gate
from training.bundle import Bundle, read_bundle, with_items
from training.content import given_widths
from training.dataset import Interactions
from training.evaluation import Evaluation, measure
from training.exam import Exam
from training.texts import TEXT

log = logging.getLogger(__name__)

Both = tuple[Evaluation, Evaluation]
"""What a new night and a champion answered to the same events."""


@dataclass(frozen=True, eq=False)
class Challenger:
    """A new night: what it answered to its exam, and what its model reads.

    `catalogue` has the vectors of texts that `text_encoder` made, if anything here did.
    """

    found: Evaluation
    exam: Exam
    vocabulary: Vocabulary
    catalogue: pa.Table
    text_encoder: str | None

    @cached_property
    def keys(self) -> np.ndarray:
        """What its exam asked for, as `keys` tells targets apart."""
        return keys(self.exam.data, self.exam.targets, self.vocabulary)

    def unlike(self, other: Bundle) -> str | None:
        """What keeps another night from reading what this one reads; None where nothing does."""
        if other.vocabulary.event_types != self.vocabulary.event_types:
            return "it knows other types of events"
        read = dict(zip(MODALITIES, other.model.config.given, strict=True))
        for name, width in zip(MODALITIES, given_widths(self.catalogue), strict=True):
            if width and read[name] not in (0, width):
                return f"it reads {name}s of {read[name]} numbers, items have {width} now"
        if read[TEXT] and other.text_encoder != self.text_encoder:
            return "its texts were encoded by another encoder"
        return None


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
        """The one that is to be beaten; None where nothing is active yet.

        Raises ReleaseError where it cannot be read.
        """
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

    def covered(self, found: Evaluation) -> gate.Check:
        """Whether a night's lists show as many items as its night's did, about."""
        told = self.night.manifest
        shown = told.metrics.get("coverage@10", 0.0) * float(told.lineage.get("items", 0))
        whom = f"the night of {self.version}"
        return gate.keeps_coverage(
            found, shown=shown, events=told.metrics.get("targets", 0.0), whom=whom
        )

    def rivals(self, challenger: Challenger) -> tuple[Both, str | None]:
        """What both answered: to what both were asked or, where that is too little to tell
        anything, to what came after the champion's night had learned, if that is more.

        The text tells what kept that night from being asked.
        """
        beside = self._beside(challenger)
        if gate.enough(beside[0]):
            return beside, None
        # A model draws its first weights: what the night learns next must not depend on it.
        with torch.random.fork_rng(devices=[]):
            try:
                night = read_bundle(self.night)
            except ReleaseError as error:  # a damaged one must not keep a new one from being made
                return beside, str(error)
            if unlike := challenger.unlike(night):
                return beside, unlike
            since = self._since(challenger, night)
        return max(beside, since, key=lambda both: len(both[0].ranks)), None

    def _beside(self, challenger: Challenger) -> Both:
        theirs = np.zeros((0, 2), np.int64) if self.answers is None else self.answers
        _, here, there = np.intersect1d(challenger.keys, theirs[:, 0], return_indices=True)
        ours = challenger.found.only(here)
        return ours, replace(ours, ranks=theirs[there, 1])

    def _since(self, challenger: Challenger, night: Bundle) -> Both:
        exam = challenger.exam
        later = exam.data.times[exam.targets] >= microseconds(self.night_end)
        ours, targets = challenger.found.only(later), exam.targets[later]
        model = with_items(night, challenger.vocabulary.item_ids, challenger.catalogue)
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
    """A release's night; the release itself where that night is gone or cannot be read."""
    try:
        return store.load(release.manifest.base or release.version)
    except ReleaseError as error:
        log.warning("the night of the active release %s is gone: %s", release.version, error)
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
