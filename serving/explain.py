"""Why an item is in a list: what proposed it, and which of the user's own events speak for it.

A tie is the cosine of two item vectors of the release: it tells what the encoder finds alike, and
is no share of the score.
"""

from collections.abc import Sequence

import numpy as np

from nearline.sequence import History, at_microseconds
from serving.answers import Tie, Why
from serving.arrange import Candidate
from serving.release import Pinned

_TIES = 3
_EVENTS = 100


def whys(pinned: Pinned, candidates: Sequence[Candidate], history: History) -> list[Why]:
    """The reason for each candidate, given the user's history."""
    ties = _ties(pinned, [candidate.item_id for candidate in candidates], history)
    return [Why(c.scores, ties.get(c.item_id, ()), c.ranked, c.boost) for c in candidates]


def _ties(pinned: Pinned, item_ids: Sequence[str], history: History) -> dict[str, tuple[Tie, ...]]:
    """The events whose items are most like each item; only items that the release knows have any.

    Of several events with one item, the newest counts.
    """
    known = pinned.release.vocabulary.item_row
    places = {item: place for place, item in enumerate(history.item_ids) if item in known}
    events = list(places.values())[-_EVENTS:]
    shown = [item_id for item_id in item_ids if item_id in known]
    if not events or not shown:
        return {}
    cosines = pinned.release.similarity(shown, [history.item_ids[place] for place in events])
    return {
        item_id: tuple(
            _tie(pinned, history, events[at], float(row[at]))
            for at in np.argsort(-row, kind="stable")[:_TIES]
        )
        for item_id, row in zip(shown, cosines, strict=True)
    }


def _tie(pinned: Pinned, history: History, place: int, similarity: float) -> Tie:
    item_id = history.item_ids[place]
    return Tie(
        item_id=item_id,
        title=pinned.catalogue.title(item_id),
        event_type=history.event_types[place],
        event_ts=at_microseconds(history.event_ts[place]),
        similarity=similarity,
    )
