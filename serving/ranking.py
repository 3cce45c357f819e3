"""The ranking stage: the candidates of all sources in the order that a release's ranker gives them.

Whatever fails here leaves the fused order, and is told: a list without the ranker is better than
none. Items that the release does not know yet keep their places, as no ranker has met any.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from nearline.ranking import SOURCES, TIED, Context, RankedUser, matrix, pooled
from nearline.sequence import microseconds
from serving.arrange import Candidate
from serving.features import StoreFailed, StoreLate, Times
from serving.logs import trace
from serving.metrics import Metrics
from serving.reasons import Reason
from serving.release import Pinned
from serving.retrieve import Retrieved
from serving.stored import RankingFeatures
from serving.users import UserState

log = logging.getLogger(__name__)

Lists = Mapping[str, Sequence[tuple[str, float]]]
"""What each source proposes: pairs of (item, score), best first."""


class Ranked(NamedTuple):
    """Candidates, best first, and why they are in the fused order if they are.

    `times` are those of the features that the ranker read.
    """

    candidates: Sequence[Candidate]
    trouble: Reason | None = None
    times: Times = MappingProxyType({})


class Ranking:
    """Ranks the candidates of requests."""

    def __init__(self, features: RankingFeatures, metrics: Metrics) -> None:
        self._features = features
        self._metrics = metrics

    def order(
        self,
        pinned: Pinned,
        state: UserState,
        found: Sequence[Retrieved],
        fused: Sequence[Candidate],
        now: datetime,
    ) -> Ranked:
        """`fused`, what the sources `found`, as the release's ranker orders it for a user."""
        try:
            ranked = self._ranked(pinned, state, found, fused, now)
        except StoreLate:
            return self._unranked(fused, Reason.RANKER_LATE)
        except StoreFailed:
            return self._unranked(fused, Reason.RANKER_FAILED)
        except Exception as error:  # whatever the ranker's fault, the fused list still answers
            log.error("the candidates were not ranked:\n%s", trace(error))
            return self._unranked(fused, Reason.RANKER_FAILED)
        self._metrics.rankings.labels("ranked").inc()
        return ranked

    def _unranked(self, fused: Sequence[Candidate], reason: Reason) -> Ranked:
        self._metrics.rankings.labels(reason.code).inc()
        return Ranked(fused, reason)

    def _ranked(
        self,
        pinned: Pinned,
        state: UserState,
        found: Sequence[Retrieved],
        fused: Sequence[Candidate],
        now: datetime,
    ) -> Ranked:
        known = pinned.release.vocabulary.item_row
        lists: Lists = {
            each.source: [pair for pair in each.items if pair[0] in known]
            for each in found
            if each.source in SOURCES
        }
        candidates = pooled(lists)
        ranker = pinned.release.ranker
        if ranker is None or not candidates:
            return Ranked(fused)
        user, items, times = self._features.of(state.user_id, candidates, now)
        rows = request_matrix(pinned, state, candidates, lists, user, items, now)
        scores = ranker.scores(rows)
        by_id = {candidate.item_id: candidate for candidate in fused if candidate.item_id in known}
        order = np.argsort(-scores, kind="stable")
        ranked = [
            Candidate(candidates[at], score, by_id.pop(candidates[at]).scores, ranked=score)
            for at, score in zip(order.tolist(), scores[order].tolist(), strict=True)
        ]
        best = iter([*ranked, *by_id.values()])
        in_place = [next(best) if c.item_id in known else c for c in fused]
        return Ranked(in_place, times=times)


def request_matrix(
    pinned: Pinned,
    state: UserState,
    candidates: Sequence[str],
    lists: Lists,
    user: RankedUser,
    items: np.ndarray,
    now: datetime,
) -> np.ndarray:
    """What the ranker reads of a request's candidates, which the release knows."""
    release, row_of = pinned.release, pinned.release.vocabulary.item_row
    events = [
        (row_of[item_id], ts)
        for item_id, ts in zip(state.history.item_ids, state.history.event_ts, strict=True)
        if item_id in row_of
    ]
    entries = [pinned.catalogue.entry(item_id) for item_id in candidates]
    return matrix(
        candidates,
        lists,
        vectors=release.matrix[[row_of[item_id] for item_id in candidates]],
        newest=release.matrix[[row for row, _ in events[-TIED:]]],
        items=items,
        categories=[entry.categories if entry else () for entry in entries],
        user=user,
        context=Context(
            now_us=microseconds(now),
            last_us=events[-1][1] if events else microseconds(now),
            events=len(events),
        ),
    )
