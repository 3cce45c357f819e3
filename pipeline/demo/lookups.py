"""The demo as a visitor sees it: a few lookups, feedback, and how long an answer takes."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pyarrow.compute as pc

from nearline.errors import NotReady
from nearline.lake import EVENTS, Lake
from nearline.schema import EVENT_SCHEMA, USER_ID
from nearline.windows import Window
from serving.client import RecommendationClient
from serving.schema import ItemList, SessionEventIn

LOOKUPS = 300
LIMIT = 10
FAVOURITES = 4
_FAR = 60
"""Feedback is about items this far down a user's list: none that stands in the answer shown."""


@dataclass(frozen=True)
class Audience:
    """The users of the hours played; the busiest of them gives feedback."""

    client: RecommendationClient
    users: Sequence[str]

    @classmethod
    def of(cls, client: RecommendationClient, window: Window) -> "Audience":
        """The users with events in `window`, the busiest first. Raises NotReady without any."""
        events = Lake.open().read(EVENTS, window, schema=EVENT_SCHEMA, columns=[USER_ID])
        counts = pc.value_counts(events[USER_ID]).to_pylist()
        ordered = sorted(counts, key=lambda count: (-count["counts"], count["values"]))
        if not ordered:
            raise NotReady(f"nobody did anything in {window}: there is nobody to look up")
        return cls(client, [count["values"] for count in ordered])

    @property
    def known(self) -> str:
        """The busiest user."""
        return self.users[0]

    def look_up(self) -> dict[str, Any]:
        """What is recommended to the busiest user now."""
        return _told(self.client.recommendations(user_id=self.known, limit=LIMIT))

    def look_around(self) -> dict[str, dict[str, Any]]:
        """One lookup of each kind."""
        known = self.client.recommendations(user_id=self.known, limit=LIMIT)
        similar = self.client.similar(item_id=known.items[0].item_id, limit=LIMIT)
        visits = [SessionEventIn(item_id=item.item_id) for item in similar.items[:FAVOURITES]]
        stranger = self.client.recommendations(user_id=f"stranger-{uuid4().hex[:8]}", limit=LIMIT)
        session = self.client.session(events=visits, limit=LIMIT)
        named = {"known": known, "unknown": stranger, "session": session, "similar": similar}
        return {name: _told(answer) for name, answer in named.items()}

    def give_feedback(self) -> set[str]:
        """The busiest user rates films from far down the list with five stars; returns them.

        One more rating is of a film that does not exist: it is to end in quarantine.
        """
        far = self.client.recommendations(user_id=self.known, limit=_FAR).items[-FAVOURITES:]
        rated = [item.item_id for item in far]
        events = [_rating(self.known, item_id) for item_id in (*rated, "no-such-film")]
        answer = self.client.send_events(events=events)
        if answer.accepted != len(events):
            raise NotReady(f"the API did not take the feedback: {answer.events}")
        return set(rated)

    def latency_ms(self) -> dict[str, float]:
        """Percentiles of one lookup after the other, over HTTP on this machine."""
        taken = []
        for turn in range(LOOKUPS):
            began = time.perf_counter()
            self.client.recommendations(user_id=self.users[turn % len(self.users)], limit=LIMIT)
            taken.append((time.perf_counter() - began) * 1000)
        cuts = statistics.quantiles(taken, n=100)
        return {"p50": round(cuts[49], 2), "p99": round(cuts[98], 2)}


def _rating(user_id: str, item_id: str) -> dict[str, Any]:
    return {
        "event_id": f"demo-{uuid4().hex}",
        "user_id": user_id,
        "item_id": item_id,
        "event_type": "rating",
        "event_ts": datetime.now(UTC).isoformat(),
        "value": 5.0,
        "surface": "demo",
    }


def _told(answer: ItemList) -> dict[str, Any]:
    """An answer as the report keeps it."""
    return {
        "source": answer.source,
        "release": answer.release,
        "items": [{"item_id": item.item_id, "title": item.title} for item in answer.items],
    }
