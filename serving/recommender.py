"""What to recommend. Knows nothing of HTTP, reads no clock: `now` comes with the request.

Every answer is made from one pinned release and its catalogue. Items that the user has touched
already, and items that are not available, are left out.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from nearline.domains import Domain
from nearline.sequence import History, Vocabulary, microseconds, model_input
from serving.errors import UnknownItem
from serving.features import FeatureReader, StoreFailed, StoreLate, Trending
from serving.metrics import Metrics
from serving.reasons import Reason, Source
from serving.release import NOBODY, LoadedRelease, Pinned
from serving.users import Users, UserState

_SECOND_US = 1_000_000
_TRENDING_FOR = timedelta(seconds=10)


@dataclass(frozen=True)
class ScoredItem:
    """A recommended item. Scores order one answer; those of different sources do not compare."""

    item_id: str
    title: str | None
    score: float


@dataclass(frozen=True)
class Ignored:
    """An event of a session that could not be used, and why."""

    item_id: str
    reason: str


@dataclass(frozen=True)
class Answer:
    """A list, where it came from, and how old the newest thing is that it knows of the user."""

    release: str
    source: Source
    items: list[ScoredItem]
    reason: Reason | None = None
    state_age_seconds: float | None = None
    ignored: tuple[Ignored, ...] = ()


@dataclass(frozen=True)
class SessionEvent:
    """What an anonymous visitor did. No type: the domain's `touch`; no time: just now."""

    item_id: str
    event_type: str | None = None
    event_ts: datetime | None = None


class Recommender:
    """Answers for users, sessions, items and the site. Safe to use from many threads."""

    def __init__(
        self, users: Users, reader: FeatureReader, domain: Domain, metrics: Metrics
    ) -> None:
        self._users = users
        self._trends = TrendingList(reader)
        self._domain = domain
        self._metrics = metrics

    def for_user(self, pinned: Pinned, user_id: str, *, limit: int, now: datetime) -> Answer:
        """Recommendations for a user; for a stranger what is trending."""
        state = self._users.state(user_id)
        answer = self._from_vector(pinned, state, limit, now)
        if answer is not None:
            return replace(answer, reason=state.trouble)
        known = bool(state.history.item_ids)
        missing = Reason.NO_KNOWN_EVENT if known else Reason.UNKNOWN_USER
        return self._trending(
            pinned,
            limit,
            now,
            reason=state.trouble or missing,
            touched=state.history.item_ids,
        )

    def for_session(
        self, pinned: Pinned, events: Sequence[SessionEvent], *, limit: int, now: datetime
    ) -> Answer:
        """Recommendations for a visitor of whom only these events are known."""
        history = self._session_history(events, now)
        ignored = tuple(_ignored(history, pinned))
        state = UserState(history)
        answer = self._from_vector(pinned, state, limit, now)
        if answer is None:
            answer = self._trending(
                pinned, limit, now, reason=Reason.NO_KNOWN_EVENT, touched=history.item_ids
            )
        return replace(answer, ignored=ignored)

    def similar(self, pinned: Pinned, item_id: str, *, limit: int, now: datetime) -> Answer:
        """Items like an item: by their vectors, or by shared categories for a new one.

        Raises UnknownItem for an item that is neither in the release nor in the catalogue.
        """
        release, catalogue = pinned.release, pinned.catalogue
        row = release.vocabulary.item_row.get(item_id)
        if row is not None:
            rows, scores = release.top(release.matrix[row][None, :], limit, [[row]])
            return Answer(release.version, "neighbours", _by_row(pinned, rows[0], scores[0]))
        if item_id not in catalogue:
            raise UnknownItem(f"no item {item_id!r} in the catalogue or in {release.version}")
        alike = sorted(catalogue.alike(item_id).items(), key=_by_share_and_popularity(release))
        if not alike:
            return self._trending(
                pinned, limit, now, reason=Reason.NO_CATEGORIES, touched=[item_id]
            )
        items = _listed(pinned, alike, limit)
        return Answer(release.version, "content", items, Reason.NEW_ITEM)

    def trending(self, pinned: Pinned, *, limit: int, now: datetime) -> Answer:
        """What the whole site touches now; without such a list, what the release saw most."""
        return self._trending(pinned, limit, now, reason=None, touched=())

    def _from_vector(
        self, pinned: Pinned, state: UserState, limit: int, now: datetime
    ) -> Answer | None:
        """The nearest items of the user's vector; None when there is none to be had."""
        release = pinned.release
        vector, source = self._vector(release, state, now)
        if vector is None:
            return None
        touched = _rows(release.vocabulary, state.history.item_ids)
        rows, scores = release.top(vector[None, :], limit, [touched])
        items = _by_row(pinned, rows[0], scores[0])
        return Answer(release.version, source, items, state_age_seconds=_age(state, now))

    def _vector(
        self, release: LoadedRelease, state: UserState, now: datetime
    ) -> tuple[np.ndarray | None, Source]:
        stored = state.stored
        if stored is not None and stored.release == release.version:
            self._metrics.user_vectors.labels("stored").inc()
            return stored.vector, "stored"
        if stored is not None:
            self._metrics.user_vectors.labels("stored_other_release").inc()
        elif state.outdated:
            self._metrics.user_vectors.labels("stored_outdated").inc()
        inputs = model_input(
            state.history, release.vocabulary, now_us=microseconds(now), length=release.length
        )
        if not len(inputs.items):
            return None, "live"
        self._metrics.user_vectors.labels("encoded").inc()
        return release.encode([inputs])[0], "live"

    def _trending(
        self,
        pinned: Pinned,
        limit: int,
        now: datetime,
        *,
        reason: Reason | None,
        touched: Collection[str],
    ) -> Answer:
        release = pinned.release
        trends, missing = self._trends.at(now)
        gone = set(touched)
        left = [pair for pair in _pairs(trends) if pair[0] not in gone]
        items = _listed(pinned, left, limit)
        if trends and items:
            age = (now - trends.ts).total_seconds()
            return Answer(release.version, "trending", items, reason, max(age, 0.0))
        rows, scores = release.popular(limit, _rows(release.vocabulary, touched))
        items = _by_row(pinned, rows, scores)
        return Answer(release.version, "popular", items, reason or missing or Reason.NO_TRENDING)

    def _session_history(self, events: Sequence[SessionEvent], now: datetime) -> History:
        touch = self._domain.touch
        rows = [
            (microseconds(min(e.event_ts or now, now)), e.item_id, e.event_type or touch)
            for e in events
        ]
        ordered = sorted(rows, key=lambda row: row[0])
        times, items, types = zip(*ordered, strict=True) if ordered else ((), (), ())
        return History(items, types, times)


class TrendingList:
    """The trending list, read again when it is some seconds old; the last good one bridges."""

    def __init__(self, reader: FeatureReader) -> None:
        self._reader = reader
        self._last: Trending | None = None
        self._trouble: Reason | None = None
        self._read_at: datetime | None = None

    def at(self, now: datetime) -> tuple[Trending | None, Reason | None]:
        """The list that holds now, and why it could not be read if it could not."""
        if self._read_at is None or not timedelta(0) <= now - self._read_at < _TRENDING_FOR:
            self._trouble = self._read()
            self._read_at = now
        last = self._last
        return (last if last and now < last.expires else None), self._trouble

    def _read(self) -> Reason | None:
        try:
            self._last = self._reader.trending()
        except StoreLate:
            return Reason.STORE_LATE
        except StoreFailed:
            return Reason.STORE_FAILED
        return None


def _ignored(history: History, pinned: Pinned) -> Iterable[Ignored]:
    vocabulary = pinned.release.vocabulary
    for item_id, event_type in zip(history.item_ids, history.event_types, strict=True):
        if item_id not in vocabulary.item_row:
            new = item_id in pinned.catalogue
            yield Ignored(item_id, "not yet in the release" if new else "unknown item")
        elif event_type not in vocabulary.type_row:
            yield Ignored(item_id, f"unknown event type {event_type!r}")


def _rows(vocabulary: Vocabulary, item_ids: Iterable[str]) -> list[int]:
    return [vocabulary.item_row[item] for item in set(item_ids) if item in vocabulary.item_row]


def _by_row(pinned: Pinned, rows: np.ndarray, scores: np.ndarray) -> list[ScoredItem]:
    ids, title = pinned.release.vocabulary.item_ids, pinned.catalogue.title
    pairs = zip(rows.tolist(), scores.tolist(), strict=True)
    return [ScoredItem(ids[row], title(ids[row]), score) for row, score in pairs if row != NOBODY]


def _listed(pinned: Pinned, pairs: Iterable[tuple[str, float]], limit: int) -> list[ScoredItem]:
    """The first `limit` pairs of (item, score) whose item may be recommended."""
    catalogue = pinned.catalogue
    found = [
        ScoredItem(item, catalogue.title(item), score)
        for item, score in pairs
        if catalogue.recommendable(item)
    ]
    return found[:limit]


def _by_share_and_popularity(release: LoadedRelease) -> Callable[[tuple[str, float]], Any]:
    """Sort key of (item, share of categories): closest first, then what the release saw most."""

    def key(pair: tuple[str, float]) -> tuple[float, float, str]:
        item_id, share = pair
        row = release.vocabulary.item_row.get(item_id)
        return -share, -float(release.popularity[row]) if row is not None else 0.0, item_id

    return key


def _pairs(trends: Trending | None) -> list[tuple[str, float]]:
    return list(zip(trends.item_ids, trends.scores, strict=True)) if trends else []


def _age(state: UserState, now: datetime) -> float | None:
    if state.last_us is None:
        return None
    return max((microseconds(now) - state.last_us) / _SECOND_US, 0.0)
