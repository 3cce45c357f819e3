"""Everything that answering takes, put together from the settings, started and stopped."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event as Signal
from threading import Lock, Thread
from typing import Any

from nearline.domains import load_domain
from nearline.errors import NotKept
from nearline.intake import (
    Accepted,
    Follower,
    Forgotten,
    Impression,
    ImpressionLog,
    ItemJournal,
    ItemReceipt,
    Journal,
    Receipt,
    accepted_events,
    put_rows,
)
from nearline.intake.forgotten import Wish, ask, forgotten_root
from nearline.lake import Lake
from nearline.settings import settings
from nearline.windows import HOUR, hour_floor
from serving.active import ActiveRelease
from serving.answers import Answer, Asked
from serving.backoff import Backoff
from serving.experiments import Choice, Trials, arrangement
from serving.features import FeatureReader
from serving.following import CatalogueFollower, first_not_online
from serving.kept import Basis, KeptLists
from serving.logs import told
from serving.metrics import Metrics
from serving.promotions import Promotions
from serving.recommender import Recommender
from serving.release import Pinned
from serving.search import SearchIndex
from serving.shadow import Shadow
from serving.users import LiveEvents, Users, UserState

log = logging.getLogger(__name__)
_LOOK_EVERY_S = 1.0
_RETRY_S = 60.0
_LOOK_ONLINE_EVERY = timedelta(minutes=1)
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_INDEXED_AT_ONCE = 20_000
"""A start waits for the index of so many items, a fifth of a second; a larger one follows."""


@dataclass(eq=False)
class Service:
    """What the API answers with. `start` before the first request, `close` after the last."""

    active: ActiveRelease
    trials: Trials
    shadow: Shadow
    promotions: Promotions
    reader: FeatureReader
    live: LiveEvents
    journal: Journal
    items: ItemJournal
    impressions: ImpressionLog
    index: SearchIndex
    users: Users
    forgotten: Forgotten
    recommender: Recommender
    metrics: Metrics
    kept: KeptLists
    live_hours: int
    _events: Follower[Accepted] | None = field(default=None, init=False)
    _live_from: datetime = field(default=_LONG_AGO, init=False)
    _look_online: datetime = field(default=_LONG_AGO, init=False)
    _following: Lock = field(default_factory=Lock, init=False)
    _stopped: Signal = field(default_factory=Signal, init=False)
    _watch: Thread | None = field(default=None, init=False)
    _backoff: Backoff = field(
        default_factory=lambda: Backoff(first_s=_LOOK_EVERY_S, most_s=_RETRY_S), init=False
    )

    @classmethod
    def open(
        cls,
        *,
        journal: Journal | None = None,
        items: ItemJournal | None = None,
        impressions: ImpressionLog | None = None,
        reader: FeatureReader | None = None,
    ) -> "Service":
        """A service of the settings; what is given stands in for theirs."""
        config, metrics, lake = settings(), Metrics(), Lake.open()
        domain, reader = load_domain(config.domain), reader or FeatureReader.open()
        items, index = items or ItemJournal.open(), SearchIndex(config.home / "search")
        live = LiveEvents(domain, length=config.sequence_length, hours=config.live_hours)
        forgotten = Forgotten(forgotten_root())
        users = Users(reader, live, forgotten, domain, length=config.sequence_length)
        catalogue = CatalogueFollower(lake, Follower(items.root, put_rows))
        active = ActiveRelease.open(catalogue, metrics)
        promotions = Promotions.open(metrics)
        return cls(
            active=active,
            trials=Trials.open(active, metrics),
            shadow=Shadow(metrics),
            promotions=promotions,
            reader=reader,
            live=live,
            journal=journal or Journal.open(),
            items=items,
            impressions=impressions or ImpressionLog.open(),
            index=index,
            users=users,
            forgotten=forgotten,
            recommender=Recommender(
                users,
                reader,
                domain,
                metrics,
                index,
                promotions,
                arrangement=arrangement(),
                promoted_places=config.promoted_places,
            ),
            metrics=metrics,
            kept=KeptLists(seconds=config.kept_seconds),
            live_hours=config.live_hours,
        )

    def start(self, clock: Callable[[], datetime]) -> None:
        """Load the active release, bring the live events back, and follow what changes."""
        now = clock()
        with ThreadPoolExecutor(1, "warm") as beside:
            warm = beside.submit(self.reader.warm)  # imports Feast
            self._refresh()
        self._follow_events(now, store_holds=warm.result())
        self.catch_up(now)
        if len(self.active.catalogue.snapshot) <= _INDEXED_AT_ONCE:
            self._index()
        self._watch = Thread(target=self._follow, args=(clock,), name="watch", daemon=True)
        self._watch.start()

    def close(self) -> None:
        """Stop following and reading."""
        self._stopped.set()
        if self._watch is not None:
            self._watch.join()
        self.shadow.close()
        self.reader.close()
        for kept in (self.journal, self.items, self.impressions):
            kept.close()

    def pin(self, now: datetime) -> Pinned:
        """What a request answers from, with all that any worker has accepted before it.

        Raises NotReady without a release.
        """
        self.catch_up(now)
        return self.active.pin()

    def basis(self, user_id: str, surface: str | None, now: datetime) -> Basis:
        """What a list of a user is made from now. Raises NotReady without a release."""
        events, since = self.live.of(user_id).events, self.forgotten.since(user_id)
        choice = self.trials.choose(user_id, surface, self.active.pin())
        return Basis(choice, user_id, events, self.promotions.running(now), since)

    def list_for(self, choice: Choice, state: UserState, asked: Asked, *, now: datetime) -> Answer:
        """A user's list by what was chosen; its experiment's guard and shadow hear of it."""

        def ask(of: Choice) -> Answer:
            return self.recommender.for_user(of.pinned, state, of.applied(asked), now=now)

        answer, shadow = self.trials.answer(choice, ask, now), self.trials.shadow(choice)
        if choice.assigned is not None and shadow is not None:
            self.shadow.ask(choice.assigned.experiment, partial(ask, shadow), answer)
        return answer

    def take(self, rows: Sequence[Any]) -> list[Receipt]:
        """Events as JSON gave them: durable when this returns, and part of every next answer.

        Raises NotKept when the disk does not keep them.
        """
        return self.journal.append(rows)

    def put(self, rows: Sequence[Any]) -> list[ItemReceipt]:
        """Items as JSON gave them: durable when this returns, and part of every next answer.

        Raises NotKept when the disk does not keep them.
        """
        return self.items.put(rows)

    def forget(self, user_id: str, clock: Callable[[], datetime]) -> Wish:
        """Forget a user: on disk when this returns, and heeded by every next answer.

        What is stored is removed by the next housekeeping. Raises NotKept when the disk does not
        keep the wish.
        """
        return ask(user_id, clock=clock)

    def shown(self, impression: Impression, *, asked: datetime) -> None:
        """Log a list that is answered and was asked for then.

        One that cannot be logged is answered all the same; so is that of a user who was forgotten
        meanwhile, which is not logged.
        """
        try:
            logged = self.impressions.add(impression, asked=asked)
        except NotKept as error:
            log.error("a list was answered without being logged: %s", error)
            self.metrics.impressions.labels("lost").inc()
        else:
            self.metrics.impressions.labels("logged" if logged else "forgotten").inc()

    def catch_up(self, now: datetime) -> None:
        """Take up what any worker has accepted. What cannot be read now is read the next time."""
        with self._following:
            self._take_up(now)

    def caught_up(self, now: datetime) -> bool:
        """As `catch_up`, but returns False at once while another thread is at it."""
        if not self._following.acquire(blocking=False):
            return False
        try:
            self._take_up(now)
        finally:
            self._following.release()
        return True

    def let_go(self, now: datetime) -> None:
        """Let go of the live events of hours that are online by now, as a start leaves them there.

        Those of users who asked to be forgotten stay: the store may not be read of them, and is rid
        of all that it has. Raises StoreLate or StoreFailed where the store cannot be read.
        """
        if self.reader.trending() is not None:
            self._live_from = self._first_not_online(now)
            self.live.let_go(self._live_from, but=lambda u: self.forgotten.since(u) is not None)

    def _follow_events(self, now: datetime, *, store_holds: bool) -> None:
        """Begin with what the online store has not; where it holds nothing, with all live hours."""
        since = now - timedelta(hours=self.live_hours)
        if store_holds:
            since = self.live.since = self._first_not_online(now)
        self._live_from = since
        self._events = Follower(self.journal.root, accepted_events, since=since)

    def _first_not_online(self, now: datetime) -> datetime:
        since = now - timedelta(hours=self.live_hours)
        return first_not_online(self.journal.root, Lake.open(), since, now)

    def _take_up(self, now: datetime) -> None:
        try:
            if forgotten := self.forgotten.follow():
                self.live.forget(forgotten)
                self.kept.forget(forgotten)
                self.recommender.forget(self.forgotten.since)
            for rows in self._events.hours(now) if self._events else ():
                # A journal stamps an event before it writes it. Now is the safe time: until the
                # next push, the users of these events are encoded anew.
                self.live.add(self._remembered(event for _, event in rows), accepted=now)
            self.live.expire(now)
            self.active.follow(now)
        except OSError:
            log.exception("the journals could not be followed")
            self.metrics.refresh_failures.labels("journals").inc()

    def _remembered(self, events: Iterable[Accepted]) -> Iterator[Accepted]:
        """Those of the events that are not forgotten; each user is looked up once."""
        since: dict[str, datetime | None] = {}
        for event in events:
            user_id = event.user_id
            if user_id not in since:
                since[user_id] = self.forgotten.since(user_id)
            moment = since[user_id]
            if moment is None or event.event_ts >= moment:
                yield event

    def _follow(self, clock: Callable[[], datetime]) -> None:
        self._index()
        while not self._stopped.wait(_LOOK_EVERY_S):
            self._refresh()
            self._index()
            now = clock()
            self.catch_up(now)
            self.kept.expire(now)
            self.live.hash_new()
            self._let_go(now)
            self._flush()

    def _let_go(self, now: datetime) -> None:
        """As `let_go`, once a minute while hours are here that a start might leave out."""
        if now >= self._look_online and self._live_from < hour_floor(now) - HOUR:
            self._look_online = now + _LOOK_ONLINE_EVERY
            self._attempt("online hours", partial(self.let_go, now))

    def _refresh(self) -> None:
        self.promotions.refresh()
        self._attempt("releases", self.trials.refresh)

    def _index(self) -> None:
        self._attempt("words", partial(self.index.follow, self.active.catalogue))

    def _attempt(self, what: str, act: Callable[[], None]) -> None:
        """Take over what changed; while it is out of reach, what was taken over before answers."""
        if self._backoff.waits(what):
            return
        try:
            act()
        except Exception as error:  # stores of files fail in ways of their own; we must go on
            pause_s, why = self._backoff.failed(what), told(error)
            log.exception("%s were not looked at; trying again in %.0f s: %s", what, pause_s, why)
            self.metrics.refresh_failures.labels(what).inc()
        else:
            self._backoff.worked(what)

    def _flush(self) -> None:
        try:
            self.impressions.flush()
        except NotKept:
            log.exception("logged lists may not be on disk")
