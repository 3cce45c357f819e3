"""Where an answer came from, and why it is not what was asked for: the words that answers use."""

from enum import StrEnum
from typing import Literal, cast

Source = Literal[
    "live", "stored", "neighbours", "cooccurrence", "content", "search", "trending", "popular"
]
"""What a whole list was made from, first of all.

live: the sequence was encoded now; stored: a vector of the same release, pushed earlier;
neighbours: item vectors of the release; cooccurrence: what the same users touch; content: shared
categories; search: the words that were asked for; trending: what the site touches now; popular:
what the release saw most."""

Retriever = Literal[
    "encoder",
    "vectors",
    "cooccurrence",
    "alike",
    "content",
    "words",
    "trending",
    "popular",
    "promotion",
]
"""What proposed one item: encoder, a user's vector; vectors, an item's vector; alike, what is said
of the items touched last; promotion, the file of promotions; the others as above."""


class Reason(StrEnum):
    """Why a fallback was taken, for people; `code` is the same for programs and counters."""

    UNKNOWN_USER = "nothing is known of this user"
    NO_KNOWN_EVENT = "the release knows none of the items and event types of this history"
    STORE_LATE = "the online store did not answer in time"
    STORE_FAILED = "the online store could not be read"
    NEW_ITEM = "the item is in the catalogue, but not yet in the release"
    NO_CATEGORIES = "the item is not yet in the release, and shares no category with another"
    RANKER_LATE = "the features of the candidates came too late: they are in their sources' order"
    RANKER_FAILED = "the candidates could not be ranked: they are in their sources' order"
    NO_TRENDING = "there is no trending list"
    NO_INDEX = "the words of a large catalogue are still being read: searches find items soon"
    ANY_WORD = "no item has every word: these have some of them"
    NO_HIT = "no item has any of the words"
    FEW_MATCH = "the filters left fewer items than were asked for"
    FEW_LEFT = "fewer items than were asked for may still be shown"

    @property
    def code(self) -> "ReasonCode":
        """The name, as answers and figures have it."""
        return cast(ReasonCode, self.name.lower())


ReasonCode = Literal[
    "unknown_user",
    "no_known_event",
    "store_late",
    "store_failed",
    "new_item",
    "no_categories",
    "ranker_late",
    "ranker_failed",
    "no_trending",
    "no_index",
    "any_word",
    "no_hit",
    "few_match",
    "few_left",
]
"""A reason for programs; the text beside it may change."""


IN_TROUBLE = {
    Reason.STORE_LATE,
    Reason.STORE_FAILED,
    Reason.RANKER_LATE,
    Reason.RANKER_FAILED,
}
"""Reasons that may be gone by the next request."""
