"""What to recommend: retrieve, fuse, arrange, fill. Knows nothing of HTTP, reads no clock.

Every answer is made from one pinned release and its catalogue. Items that the user has touched
already, as far as the domain says so, and items that may not be shown, are left out; see
serving/rules.py.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import chain, repeat

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
        self._features = RankingFeatures(reader)
        self._ranking = Ranking(self._features, metrics)
        self._vectors = UserVectors(metrics)
        self._domain, self._showing = domain, set(domain.showing)
        self._index = index
        self._promotions = promotions
        self._arrangement = arrangement
        self._as_found = Arrangement(arrangement.category_cap)
        self._promoted_places = promoted_places

    def forget(self, since: Callable[[str], datetime | None]) -> None:
        """Drop what is in memory of users who were forgotten; `since` tells when, if they were."""
        self._features.forget(since)

    def states(self, user_ids: Sequence[str], *, now: datetime) -> dict[str, UserState]:
        """What is known of each user now, read for all of them together."""
        return self._tied(self._users.states(user_ids), now)

    def for_user(self, pinned: Pinned, state: UserState, asked: Asked, *, now: datetime) -> Answer:
        """Recommendations for a user of whom this is known; for a stranger what is trending."""
        unknown = Reason.NO_KNOWN_EVENT if state.history.item_ids else Reason.UNKNOWN_USER
        return self._for_state(pinned, state, asked, now, unknown)

    def for_session(
        self, pinned: Pinned, events: Sequence[SessionEvent], asked: Asked, *, now: datetime
    ) -> Answer:
        """Recommendations for a visitor of whom only these events are known."""
        history = self._session_history(events, now)
        [state] = self._tied({"": UserState(history)}, now).values()
        answer = self._for_state(pinned, state, asked, now, Reason.NO_KNOWN_EVENT)
        return replace(answer, ignored=tuple(_ignored(history, pinned)))

    def similar(self, pinned: Pinned, item_id: str, asked: Asked, *, now: datetime) -> Answer:
        """Items like an item: by their vectors and their users, or by categories for a new one
        of whose words the release makes no vector.

        Raises UnknownItem for an item that is neither in the release nor in the catalogue.
        """
        rules, vector = _rules(pinned, asked, now, [item_id]), pinned.vector(item_id)
        if vector is None and item_id not in pinned.catalogue:
            version = pinned.release.version
            raise UnknownItem(f"no item {item_id!r} in the catalogue or in {version}")
        near, trouble = self._neighbours.of([item_id], now)
        state = replace(STRANGER, near=near)
        together = partial(retrieve.together, neighbours=near)
        if vector is not None:
            nearest = partial(retrieve.nearest, vector=vector, source="vectors")
            own = _Own([nearest, together], state, source="neighbours", reason=trouble)
            return self._answer(rules, asked, own, _Site(), now)
        by_categories = partial(retrieve.by_categories, item_id=item_id)
        own = _Own([by_categories, together], state, reason=trouble or Reason.NEW_ITEM)
        answer = self._answer(rules, asked, own, _Site(), now)
        if answer.items:
            return answer
        nothing = _Own(reason=Reason.NO_CATEGORIES)
        return self._answer(rules, asked, nothing, self._site(now, read=not trouble), now)

    def search(
        self, pinned: Pinned, words: str, user_id: str | None, asked: Asked, *, now: datetime
    ) -> Answer:
        """Items by keywords, ordered to the taste of a user where one is given.

        What the user has touched is found as well. Where no item has every word, those that have
        some are found. Only a list that filters left too short is filled up.
        """
        state = self._users.state(user_id) if user_id is not None else STRANGER
        rules = _rules(pinned, asked, now)
        if not self._index.made:
            return self._answer(rules, asked, _Own(reason=Reason.NO_INDEX), self._site(now), now)
        vector, _ = self._vectors.of(pinned.release, state, now)
        every = self._index.has(words, pinned.catalogue, every=True)
        some = every or self._index.has(words, pinned.catalogue, every=False)
        hits = partial(self._index.find, words, pinned.catalogue, every=every)
        less = None if every else Reason.ANY_WORD if some else Reason.NO_HIT
        own = _Own(
            [partial(retrieve.found, find=hits, vector=vector)],
            state,
            source="search",
            reason=state.trouble or less,
        )
        answer = self._answer(rules, asked, own, _Site(), now)
        return answer if rules.filters else replace(answer, filled=None)

    def trending(self, pinned: Pinned, asked: Asked, *, now: datetime) -> Answer:
        """What the whole site touches now; without such a list, what the release saw most."""
        own = _Own(how=self._how(asked))
        return self._answer(_rules(pinned, asked, now), asked, own, self._site(now), now)

    def _tied(self, states: Mapping[str, UserState], now: datetime) -> dict[str, UserState]:
        """States with what the same users touch as the newest items, in one read for all."""
        # A store in trouble is not asked again: its deadline has passed once in this request.
        newest = {
            user_id: () if state.trouble else state.history.item_ids[-TIED:]
            for user_id, state in states.items()
        }
        near, trouble = self._neighbours.of(chain.from_iterable(newest.values()), now)
        return {
            user_id: replace(
                state,
                near={item: near[item] for item in newest[user_id] if item in near},
                trouble=state.trouble or trouble,
            )
            for user_id, state in states.items()
        }

    def _for_state(
        self, pinned: Pinned, state: UserState, asked: Asked, now: datetime, unknown: Reason
    ) -> Answer:
        """What is made for one user; without anything to go by, what is made for all."""
        how, item_id = self._how(asked), asked.context.item_id
        seen = state if item_id is None else self._seeing(state, item_id, now)
        rules = _rules(pinned, asked, now, self._hidden(seen, item_id))
        promoted = slots(
            self._promotions.running(now) if how.promotions else (),
            rules,
            surface=asked.surface,
            categories=asked.categories,
            limit=asked.limit,
            most=self._promoted_places,
        )
        site = self._site(now, read=not seen.trouble)
        told = replace(state, near=seen.near, trouble=seen.trouble)
        answer = self._answer(
            rules.leaving_out(slot.item_id for slot in promoted),
            replace(asked, limit=asked.limit - len(promoted)),
            replace(self._own(pinned, seen, asked, site, now, unknown), state=told, how=how),
            site,
            now,
        )
        return placed(answer, promoted, rules, explain=asked.explain)

    def _own(
        self,
        pinned: Pinned,
        state: UserState,
        asked: Asked,
        site: "_Site",
        now: datetime,
        unknown: Reason,
    ) -> "_Own":
        """What is made of a user's state; `unknown` says why where that has no vector."""
        vector, source = self._vectors.of(pinned.release, state, now)
        sources: list[Retrieve] = [
            partial(retrieve.together, neighbours=state.near),
            partial(retrieve.new_to_taste, history=state.history),
        ]
        if vector is None:
            return _Own(sources, state, reason=state.trouble or unknown)
        sources.insert(0, partial(retrieve.nearest, vector=vector))
        rank = None
        if asked.ranked and pinned.release.ranker is not None and not state.trouble:
            sources += [
                partial(retrieve.alike, history=state.history),
                partial(retrieve.trending, trends=site.trends),
            ]
            rank = partial(self._ranking.order, pinned, state, now=now)
        return _Own(sources, state, rank, source, state.trouble)

    def _seeing(self, state: UserState, item_id: str, now: datetime) -> UserState:
        """The state with the item that the user looks at as the last touch; nothing keeps it."""
        history = state.history
        if item_id in history.item_ids[-1:]:
            return state
        seen = History(
            (*history.item_ids, item_id),
            (*history.event_types, self._domain.touch),
            (*history.event_ts, microseconds(now)),
            (*history.values, 0.0),
        )
        near, trouble = self._neighbours.of(() if state.trouble else [item_id], now)
        return replace(
            state,
            history=seen,
            stored=None,
            near={**state.near, **near},
            trouble=state.trouble or trouble,
        )

    def _hidden(self, state: UserState, seen: str | None) -> set[str]:
        """What a user is not shown again, by the domain's choice, and what it looks at now."""
        done = zip(state.history.item_ids, state.history.event_types, strict=True)
        lately = {item_id for item_id, kind in done if kind not in self._showing}
        return lately.union(state.taken, [seen] if seen else ())

    def _how(self, asked: Asked) -> Arrangement:
        return asked.arrangement or self._arrangement

    def _site(self, now: datetime, *, read: bool = True) -> "_Site":
        trends, trouble = self._trends.at(now, read=read)
        sources: list[Retrieve] = [
            partial(retrieve.trending, trends=trends),
            retrieve.popular,
            retrieve.newest,
        ]
        return _Site(sources, trends, trouble or Reason.NO_TRENDING)

    def _answer(
        self, rules: Rules, asked: Asked, own: "_Own", site: "_Site", now: datetime
    ) -> Answer:
        """The list of one's own, or the site's where that has nothing, filled up."""
        how = own.how or self._as_found
        ranked = self._chosen(rules, asked, own.sources, how, own.rank)
        mine = ranked.candidates
        main = mine or self._first(rules, asked, site.sources, how)
        full = self._filled(rules, asked, main, own.sources, site.sources) if asked.fill else main
        is_own = bool(mine) or (own.source is not None and not main)
        source = own.source if is_own and own.source else _made_from(main)
        few = Reason.FEW_MATCH if rules.filters else Reason.FEW_LEFT
        return Answer(
            release=rules.pinned.release.version,
            source=source,
            items=_items(rules.pinned, full, own.state.history if asked.explain else None),
            reason=own.reason or ranked.trouble or (site.trouble if source == "popular" else None),
            filled=Filled(len(full) - len(main), few) if len(main) < asked.limit else None,
            state_age_seconds=_age(own.state, now) if is_own else site.age(source, now),
            features={
                **(own.state.features if is_own else {}),
                **ranked.times,
                **_read_for(full, own.state, site),
            },
        )

    def _chosen(
        self,
        rules: Rules,
        asked: Asked,
        sources: Sequence[Retrieve],
        how: Arrangement,
        rank: Rank | None = None,
    ) -> Ranked:
        """What these sources propose, as one list."""
        pool = max(POOL, 2 * asked.limit)
        found = [source(rules, pool) for source in sources]
        candidates: Iterable[Candidate] = fused(found)
        ranked = Ranked(())
        if rank is not None and (pooled := list(candidates)):
            ranked = rank(found, pooled)
            candidates = ranked.candidates
        return ranked._replace(candidates=arranged(rules, asked, candidates, how))

    def _first(
        self, rules: Rules, asked: Asked, sources: Sequence[Retrieve], how: Arrangement
    ) -> Sequence[Candidate]:
        """The list of the first source that has any."""
        lists = (self._chosen(rules, asked, [source], how).candidates for source in sources)
        return next(filter(None, lists), ())

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
class _Own:
    """What is made for whoever asks: by which sources, from which state, ranked by what.

    `source` is what such a list is called; without it, by what proposed its first item. `reason`
    says why it is a fallback, if it is. Without `how`, candidates keep their order but for the cap
    of categories.
    """

    sources: Sequence[Retrieve] = ()
    state: UserState = STRANGER
    rank: Rank | None = None
    source: Source | None = None
    reason: Reason | None = None
    how: Arrangement | None = None


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


def _read_for(shown: Sequence[Candidate], state: UserState, site: _Site) -> dict[str, datetime]:
    """Up to when the lists were known that proposed what is shown."""
    sources = {source for candidate in shown for source in candidate.scores}
    found = {}
    known = [near.ts for near in state.near.values() if near.ts is not None]
    if "cooccurrence" in sources and known:
        found["item_neighbours"] = max(known)
    if "trending" in sources and site.trends is not None:
        found["trending"] = site.trends.ts
    return found


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
