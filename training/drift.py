"""How far a release has moved from the night that its line began with: what users would be shown.

Both models make lists for the same users from the same histories. Drift is the mean share of the
night's top 10 that the other does not show: 1 - overlap@10 (the agreement at one depth of Webber et
al. 2010). It reads lists, not vectors: a space that is turned as a whole has not moved.
"""

import logging
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from nearline.errors import ReleaseError
from nearline.releases import Drift, ReleaseManifest, ReleaseStore
from nearline.sequence import microseconds
from nearline.settings import settings
from nearline.windows import HOUR, Window
from training.bundle import ServedEncoder, read_bundle, with_items
from training.dataset import Interactions, last_events, name_hashes, requests, touched
from training.evaluation import TOP
from training.model import Model

log = logging.getLogger(__name__)

SAMPLE = 200
"""Users whose lists are compared: of those active lately, the same ones hour after hour."""


class Night(NamedTuple):
    """The night that a line began with, with the items that are known now; `end` of its data."""

    version: str
    model: Model
    end: datetime


def night_of(
    parent: ReleaseManifest, item_ids: tuple[str, ...], catalogue: pa.Table
) -> Night | None:
    """The night of a release's line; None where it cannot be read."""
    try:
        night = ReleaseStore.open().load(parent.base or parent.version)
        model = with_items(read_bundle(night), item_ids, catalogue)
    except ReleaseError as error:  # a damaged night must not keep the hour from learning
        log.warning("the drift from the night is not known: %s", error)
        return None
    return Night(night.manifest.version, model, night.manifest.window_end)


def drift(model: Model, night: Night, data: Interactions, window: Window) -> Drift:
    """The drift of a fine-tune on `window` from the night of its line."""
    states = sampled(data)
    changed = changed_share(model, night.model, data, states, now=microseconds(window.end))
    return judged(changed, len(states), window.end - night.end)


def judged(changed: float, users: int, age: timedelta) -> Drift:
    """A measured drift beside its limits."""
    config = settings()
    return Drift(
        changed=round(changed, 4),
        bound=config.drift_bound,
        users=users,
        hours=age / HOUR,
        max_hours=config.drift_hours,
    )


def sampled(data: Interactions) -> np.ndarray:
    """The newest position of each user of the sample: those whose ids hash lowest."""
    last = np.flatnonzero(last_events(data.users))
    order = name_hashes(data)[data.users[last]]
    return last[np.argsort(order, kind="stable")[:SAMPLE]]


def changed_share(
    model: Model, night: Model, data: Interactions, states: np.ndarray, *, now: int
) -> float:
    """The mean share of the night's top lists that the model does not show; 0 without users.

    `states` are positions of `data`, `now` is in microseconds. Both models know the same items.
    """
    if len(states) == 0:
        return 0.0
    ours, theirs = (_lists(each, data, states, now) for each in (model, night))
    kept = [np.isin(a, b).mean() for a, b in zip(theirs, ours, strict=True)]
    return float(1 - np.mean(kept))


@torch.no_grad()
def _lists(model: Model, data: Interactions, states: np.ndarray, now: int) -> np.ndarray:
    """The top items of each state without those touched, int64 (states, 10 at most)."""
    served = ServedEncoder(model.eval())
    inputs = requests(data, states, np.full(len(states), now), length=model.config.length)
    scores = (served(*map(torch.from_numpy, inputs)) @ model.item_matrix().T).numpy()
    scores[touched(data, states)] = -np.inf
    count = min(TOP, scores.shape[1])
    lists: np.ndarray = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    return lists
