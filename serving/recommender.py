"""What to recommend: retrieve, fuse, arrange, fill. Knows nothing of HTTP, reads no clock.

Every answer is made from one pinned release and its catalogue. Items that the user has touched
already, as far as the domain says so, and items that may not be shown, are left out; see
serving/rules.py.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import repeat

from nearline.domains import Domain
from nearline.ranking import POOL, TIED
from nearline.sequence import History, microseconds
from serving import retrieve
from serving.answers import (
    Answer,
    Arrangement,
    Asked,
    Filled,
    Ignored,
    ScoredItem,
    SessionEvent,
)
from serving.arrange import Candidate, filled, fused
from serving.arranged import arranged
from serving.errors import UnknownItem
from serving.explain import whys
from serving.features import EMPTY, FeatureReader, Trending
from serving.metrics import Metrics
from serving.promotions import Promotions, placed, slots
from serving.ranking import Ranked, Ranking
from serving.reasons import Reason, Retriever, Source
from serving.release import Pinned
from serving.retrieve import Retrieved
from serving.rules import Rules
from serving.search import SearchIndex
from serving.stored import NeighbourLists, RankingFeatures, TrendingList
from serving.users import Users, UserState
from serving.vectors import UserVectors

Retrieve = Callable[[Rules, int], Retrieved]
"""A source of candidates: what it proposes under these rules, at most so many."""

Rank = Callable[[Sequence[Retrieved], Sequence[Candidate]], Ranked]
"""Orders what the sources found, given as found and fused."""

STRANGER = UserState(EMPTY)

_SECOND_US = 1_000_000


class Recommender:
    """Answers for users, sessions, items and the site. Safe to use from many threads.

    `arrangement` is that of the settings; a question may bring another.
    """

    def __init__(
        self,
        users: Users,
        reader: FeatureReader,
        domain: Domain,
        metrics: Metrics,
        index: SearchIndex,
        promotions: Promotions,
        *,
        arrangement: Arrangement,
        promoted_places: int,
    ) -> None:
        self._users = users
        self._trends = TrendingList(reader)
        self._neighbours = NeighbourLists(reader, metrics)
        self._ranking = Ranking(RankingFeatures(reader), metrics)
        self._vectors = UserVectors(metrics)
        self._domain, self._showing = domain, set(domain.showing)
        self._index = index
        self._promotions = promotions
        self._arrangement = arrangement
        self._as_found = Arrangement(arrangement.category_cap)
        self._promoted_places = promoted_places

    def for_user(self, pinned: Pinned, user_id: str, asked: Asked, *, now: datetime) -> Answer:
        """Recommendations for a user; for a stranger what is trending."""
        state = self._users.state(user_id)
        unknown = Reason.NO_KNOWN_EVENT if state.history.item_ids else Reason.UNKNOWN_USER
        return self._for_state(pinned, state, asked, now, unknown)

    def for_session(
        self, pinned: Pinned, events: Sequence[SessionEvent], asked: Asked, *, now: datetime
    ) -> Answer:
        """Recommendations for a visitor of whom only these events are known."""
        history = self._session_history(events, now)
        state = UserState(history)
        answer = self._for_state(pinned, state, asked, now, Reason.NO_KNOWN_EVENT)
        return replace(answer, ignored=tuple(_ignored(history, pinned)))

    def similar(self, pinned: Pinned, item_id: str, asked: Asked, *, now: datetime) -> Answer:
        """Items like an item: by their vectors and their users, or by categories for a new one
        of whose words the release makes no vector.

        Raises UnknownItem for an item that is neither in the release nor in the catalogue.
        """
        rules, vector = _rules(pinned, asked, now, [item_id]), pinned.vector(item_id)
        near = self._neighbours.of([item_id], now)
        own: list[Retrieve] = [partial(retrieve.together, neighbours=near)]
        if vector is not None:
            own.insert(0, partial(retrieve.nearest, vector=vector, source="vectors"))
            return self._answer(rules, asked, own, _Site(), now, source="neighbours")
        if item_id not in pinned.catalogue:
            version = pinned.release.version
            raise UnknownItem(f"no item {item_id!r} in the catalogue or in {version}")
        own.insert(0, partial(retrieve.alike, item_id=item_id))
        answer = self._answer(rules, asked, own, _Site(), now, reason=Reason.NEW_ITEM)
        if answer.items:
            return answer
        return self._answer(rules, asked, [], self._site(now), now, reason=Reason.NO_CATEGORIES)

    def search(
        self, pinned: Pinned, words: str, user_id: str | None, asked: Asked, *, now: datetime
    ) -> Answer:
        """Items by keywords, ordered to the taste of a user where one is given.

        What the user has touched is found as well. Where no item has every word, those that have
        some are found.
        """
        state = self._users.state(user_id) if user_id is not None else STRANGER
        rules = _rules(pinned, asked, now)
        if not self._index.made:
            return self._answer(rules, asked, [], self._site(now), now, reason=Reason.NO_INDEX)
        vector, _ = self._vectors.of(pinned.release, state, now)
        hits = self._index.find(words, pinned.catalogue, every=True)
        reason = None if hits else Reason.ANY_WORD
        hits = hits or self._index.find(words, pinned.catalogue, every=False)
        own: list[Retrieve] = [partial(retrieve.found, hits=hits, vector=vector)]
        answer = self._answer(
            rules, asked, own, _Site(), now, state=state, source="search", reason=state.trouble
        )
        return replace(answer, reason=answer.reason or (reason if hits else None))

    def trending(self, pinned: Pinned, asked: Asked, *, now: datetime) -> Answer:
        """What the whole site touches now; without such a list, what the release saw most."""
        how, site = self._how(asked), self._site(now)
        return self._answer(_rules(pinned, asked, now), asked, [], site, now, how=how)

    def _for_state(
        self, pinned: Pinned, state: UserState, asked: Asked, now: datetime, unknown: Reason
    ) -> Answer:
        """What is made for one user; without anything to go by, what is made for all."""
        how, seen = self._how(asked), self._seeing(state, asked.context.item_id, now)
        rules = _rules(pinned, asked, now, self._hidden(seen, asked.context.item_id))
        promoted = slots(
            self._promotions.running(now) if how.promotions else (),
            rules,
            surface=asked.surface,
            categories=asked.categories,
            limit=asked.limit,
            most=self._promoted_places,
        )
        vector, source = self._vectors.of(pinned.release, seen, now)
        # A store in trouble is not asked again: its deadline has passed once in this request.
        tied = () if state.trouble else seen.history.item_ids[-TIED:]
        own: list[Retrieve] = [
            partial(retrieve.together, neighbours=self._neighbours.of(tied, now)),
            partial(retrieve.new_to_taste, history=seen.history),
        ]
        site, rank = self._site(now), None
        if vector is not None:
            own.insert(0, partial(retrieve.nearest, vector=vector))
            if asked.ranked and pinned.release.ranker is not None and not state.trouble:
                own.append(partial(retrieve.trending, trends=site.trends))
                rank = partial(self._ranking.order, pinned, seen, now=now)
        answer = self._answer(
            rules.leaving_out(slot.item_id for slot in promoted),
            replace(asked, limit=asked.limit - len(promoted)),
            own,
            site,
            now,
            how=how,
            state=state,
            rank=rank,
            source=source if vector is not None else None,
            reason=state.trouble or (unknown if vector is None else None),
        )
        return placed(answer, promoted, rules, explain=asked.explain)

    def _seeing(self, state: UserState, item_id: str | None, now: datetime) -> UserState:
        """The state with the item that the user looks at as the last touch; nothing keeps it."""
        history = state.history
        if item_id is None or item_id in history.item_ids[-1:]:
            return state
        seen = History(
            (*history.item_ids, item_id),
            (*history.event_types, self._domain.touch),
            (*history.event_ts, microseconds(now)),
            (*history.values, 0.0),
        )
        return replace(state, history=seen, stored=None)

    def _hidden(self, state: UserState, seen: str | None) -> set[str]:
        """What a user is not shown again, by the domain's choice, and what it looks at now."""
        done = zip(state.history.item_ids, state.history.event_types, strict=True)
        lately = {item_id for item_id, kind in done if kind not in self._showing}
        return lately.union(state.taken, [seen] if seen else ())

    def _how(self, asked: Asked) -> Arrangement:
        return asked.arrangement or self._arrangement

    def _site(self, now: datetime) -> "_Site":
        trends, trouble = self._trends.at(now)
        sources: list[Retrieve] = [
            partial(retrieve.trending, trends=trends),
            retrieve.popular,
            retrieve.newest,
        ]
        return _Site(sources, trends, trouble or Reason.NO_TRENDING)

    def _answer(
        self,
        rules: Rules,
        asked: Asked,
        own: Sequence[Retrieve],
        site: "_Site",
        now: datetime,
        *,
        how: Arrangement | None = None,
        state: UserState = STRANGER,
        rank: Rank | None = None,
        source: Source | None = None,
        reason: Reason | None = None,
    ) -> Answer:
        """The list of the `own` sources, or of the site's where these have nothing, filled up.

        `source` is what the own list is called; without it, by what proposed its first item.
        Without `how`, candidates keep their order but for the cap of categories.
        """
        how = how or self._as_found
        mine, unranked = self._chosen(rules, asked, own, how, rank)
        main = mine or self._first(rules, asked, site.sources, how)
        full = self._filled(rules, asked, main, own, site.sources) if asked.fill else main
        made_from: Source = source if source and (mine or not main) else _made_from(main)
        few = Reason.FEW_MATCH if rules.filters else Reason.FEW_LEFT
        return Answer(
            release=rules.pinned.release.version,
            source=made_from,
            items=_items(rules.pinned, full, state.history if asked.explain else None),
            reason=reason or unranked or (site.trouble if made_from == "popular" else None),
            filled=Filled(len(full) - len(main), few) if len(main) < asked.limit else None,
            state_age_seconds=_age(state, now) if mine else site.age(made_from, now),
            features=state.features if mine else site.features(made_from),
        )

    def _chosen(
        self,
        rules: Rules,
        asked: Asked,
        sources: Sequence[Retrieve],
        how: Arrangement,
        rank: Rank | None = None,
    ) -> tuple[list[Candidate], Reason | None]:
        """What these sources propose, as one list, and why it was not ranked if it was to be."""
        pool = max(POOL, 2 * asked.limit)
        found = [source(rules, pool) for source in sources]
        candidates: Iterable[Candidate] = fused(found)
        trouble = None
        if rank is not None and (pooled := list(candidates)):
            candidates, trouble = rank(found, pooled)
        return arranged(rules, asked, candidates, how), trouble

    def _first(
        self, rules: Rules, asked: Asked, sources: Sequence[Retrieve], how: Arrangement
    ) -> list[Candidate]:
        """The list of the first source that has any."""
        lists = (self._chosen(rules, asked, [source], how)[0] for source in sources)
        return next(filter(None, lists), [])

    def _filled(
        self,
        rules: Rules,
        asked: Asked,
        main: Sequence[Candidate],
        own: Sequence[Retrieve],
        site: Sequence[Retrieve],
    ) -> list[Candidate]:
        """`main`, filled up by the site's sources, and at last by what the filters do not want."""
        full = filled(main, [partial(source, rules) for source in site], asked.limit)
        if rules.filters:
            loose = rules.without_filters()
            rest = [partial(source, loose) for source in (*own, *site)]
            full = filled(full, rest, asked.limit, matches=False)
        return full

    def _session_history(self, events: Sequence[SessionEvent], now: datetime) -> History:
        touch = self._domain.touch
        rows = [
            (
                microseconds(min(e.event_ts or now, now)),
                e.item_id,
                e.event_type or touch,
                e.value or 0.0,
            )
            for e in events
        ]
        if not rows:
            return EMPTY
        times, items, types, values = zip(*sorted(rows, key=lambda row: row[0]), strict=True)
        return History(items, types, times, values)


@dataclass(frozen=True)
class _Site:
    """What is made for all: its sources, best first, and why there is no trending list if so."""

    sources: Sequence[Retrieve] = ()
    trends: Trending | None = None
    trouble: Reason = Reason.NO_TRENDING

    def age(self, source: Source, now: datetime) -> float | None:
        """Seconds since the trending list was made, where the answer is made from it."""
        if source != "trending" or self.trends is None:
            return None
        return max((now - self.trends.ts).total_seconds(), 0.0)

    def features(self, source: Source) -> dict[str, datetime]:
        """The time of the trending list, where the answer is made from it."""
        there = source == "trending" and self.trends is not None
        return {"trending": self.trends.ts} if there and self.trends else {}


def _rules(pinned: Pinned, asked: Asked, now: datetime, touched: Collection[str] = ()) -> Rules:
    return Rules(pinned, microseconds(now), asked.exclude.union(touched), asked.filters)


def _made_from(main: Sequence[Candidate]) -> Source:
    """What a list is called by its first item; an empty one by the last resort."""
    first = main[0].source if main else "popular"
    named: dict[Retriever, Source] = {"encoder": "live", "vectors": "neighbours", "words": "search"}
    return named.get(first, first)  # type: ignore[arg-type]


def _items(
    pinned: Pinned, candidates: Sequence[Candidate], history: History | None
) -> list[ScoredItem]:
    """Candidates as they are answered, each with its reason where the history is given."""
    reasons = whys(pinned, candidates, history) if history is not None else repeat(None)
    return [
        ScoredItem(
            item_id=c.item_id,
            title=pinned.catalogue.title(c.item_id),
            score=c.score,
            source=c.source,
            matches=c.matches,
            why=why,
            propensity=c.propensity,
        )
        for c, why in zip(candidates, reasons, strict=False)
    ]


def _ignored(history: History, pinned: Pinned) -> Iterable[Ignored]:
    vocabulary = pinned.release.vocabulary
    for item_id, event_type in zip(history.item_ids, history.event_types, strict=True):
        if item_id not in vocabulary.item_row:
            new = item_id in pinned.catalogue
            yield Ignored(item_id, "not yet in the release" if new else "unknown item")
        elif event_type not in vocabulary.type_row:
            yield Ignored(item_id, f"unknown event type {event_type!r}")


def _age(state: UserState, now: datetime) -> float | None:
    if state.last_us is None:
        return None
    return max((microseconds(now) - state.last_us) / _SECOND_US, 0.0)
