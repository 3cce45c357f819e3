"""The feature views: what is known of a user, an item and a surface, and for how long it holds."""

from datetime import timedelta

from feast import FeatureView, Field
from feast.types import Array, FeastType, Float32, Float64, Int64, String, UnixTimestamp

from feature_repo.entities import item, surface, user
from feature_repo.sources import (
    item_conversion_source,
    item_embedding_push,
    item_neighbours_source,
    item_popularity_source,
    trending_source,
    user_activity_source,
    user_category_affinity_source,
    user_embedding_push,
    user_habits_source,
    user_searches_source,
    user_sequence_source,
)

WINDOWS = {"1h": "hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days"}


def _key(name: str) -> Field:
    return Field(name=name, dtype=String, description="Key.")


def _field(name: str, dtype: FeastType, description: str) -> Field:
    return Field(name=name, dtype=dtype, description=description)


def _counts(name: str, what: str) -> list[Field]:
    return [_field(f"{name}_{w}", Int64, f"{what} in the last {t}.") for w, t in WINDOWS.items()]


def _by_type() -> list[Field]:
    """Lists with one value for each event type of the domain, in the order of its file."""
    return [
        _field("event_types", Array(String), "Event types of the domain; the lists follow them."),
        *(
            _field(f"events_by_type_{w}", Array(Int64), f"Events of each type in the last {t}.")
            for w, t in WINDOWS.items()
        ),
        _field("shares_by_type_30d", Array(Float64), "Share of each type in 30 days of events."),
        _field("decayed_by_type", Array(Float64), "Events of 30 days, halved every 7 days."),
        _field("value_sums_by_type_30d", Array(Float64), "Sum of values of each type, 30 days."),
        _field(
            "mean_values_by_type_30d",
            Array(Float64),
            "Mean value on the domain's range, drawn to 0.5; 0.5 where none is required.",
        ),
    ]


user_activity = FeatureView(
    name="user_activity",
    entities=[user],
    # A row follows whenever a window of 30 days or less expires: an older row says "idle" anyway.
    ttl=timedelta(days=31),
    schema=[
        _key("user_id"),
        *_counts("events", "Events of any type"),
        *_counts("positive_events", "Events of the domain's positive types"),
        *_counts("item_touches", "Items touched, once for each hour and event type,"),
        *_counts("active_hours", "Hours with an event"),
        _field("decayed_weight", Float64, "Domain weight of 30 days, halved every 24 hours."),
        _field("recency_seconds", Int64, "Seconds from the newest event to the row's time."),
        _field("last_event_ts", UnixTimestamp, "Newest event of the last 30 days, if any."),
        *_by_type(),
    ],
    source=user_activity_source,
    description="How much a user has done lately.",
)

user_habits = FeatureView(
    name="user_habits",
    entities=[user],
    ttl=timedelta(days=31),  # as for user_activity
    schema=[
        _key("user_id"),
        *(
            _field(f"sessions_{w}", Int64, f"Sessions that began in the last {WINDOWS[w]}.")
            for w in ("24h", "7d", "30d")
        ),
        _field("session_events_30d", Float64, "Mean events of a session in 30 days."),
        _field("session_seconds_30d", Float64, "Mean active seconds of a session in 30 days."),
        _field("hours_of_day", Array(Float64), "Share of each UTC hour in 30 days of events."),
        _field("weekend_share", Float64, "Share of Saturday and Sunday in 30 days of events."),
    ],
    source=user_habits_source,
    description="How and when a user comes.",
)

user_category_affinity = FeatureView(
    name="user_category_affinity",
    entities=[user],
    # The row that empties the lists comes 30 days after the last event.
    ttl=timedelta(days=31),
    schema=[
        _key("user_id"),
        _field("categories", Array(String), "At most 20 categories, strongest first."),
        _field("affinities", Array(Float64), "Share of each category in the user's weight."),
        _field("distinct_categories", Int64, "Categories with weight in 30 days."),
        _field("diversity", Float64, "Entropy of the shares, 0 (one category) to 1 (all alike)."),
    ],
    source=user_category_affinity_source,
    description="What a user likes, by category.",
)

user_searches = FeatureView(
    name="user_searches",
    entities=[user],
    # The row that empties the lists comes 30 days after the last search.
    ttl=timedelta(days=31),
    schema=[
        _key("user_id"),
        _field("queries", Array(String), "At most 20 queries, strongest first."),
        _field("scores", Array(Float64), "Searches of 30 days, halved every 7 days."),
        _field("last_query", String, "Newest query of 30 days, if any."),
        _field("searches_24h", Int64, "Searches in the last 24 hours."),
        _field("searches_30d", Int64, "Searches in the last 30 days."),
    ],
    source=user_searches_source,
    description="What a user searches for.",
)

user_sequence = FeatureView(
    name="user_sequence",
    entities=[user],
    # Tastes outlive a pause: whoever comes back within a year is not a stranger.
    ttl=timedelta(days=365),
    schema=[
        _key("user_id"),
        _field("item_ids", Array(String), "Items of the newest events, oldest first."),
        _field("event_types", Array(String), "Type of each event."),
        _field("event_ts", Array(Int64), "Time of each event, Unix microseconds."),
        _field("values", Array(Float64), "Value of each event."),
        _field(
            "taken_item_ids",
            Array(String),
            "Items of events that hide theirs always, at most 1,000, newest first.",
        ),
    ],
    source=user_sequence_source,
    description="The newest events of a user, as the model reads them.",
)

item_popularity = FeatureView(
    name="item_popularity",
    entities=[item],
    # As for user_activity: the last row of an idle item is all zeros.
    ttl=timedelta(days=31),
    schema=[
        _key("item_id"),
        *_counts("events", "Events of any type"),
        *_counts("user_touches", "Users, once for each hour and event type,"),
        _field("velocity", Float64, "Events of 24 hours over the daily mean of 7 days."),
        _field("mean_value_30d", Float64, "Mean value on the domain's range, drawn to 0.5."),
        _field("age_hours", Float64, "Hours since the item was created."),
        _field("decayed_weight", Float64, "Domain weight of 30 days, halved every 24 hours."),
        *_by_type(),
    ],
    source=item_popularity_source,
    description="How much an item is touched lately.",
)

item_conversion = FeatureView(
    name="item_conversion",
    entities=[item],
    ttl=timedelta(days=31),  # as for item_popularity
    schema=[
        _key("item_id"),
        _field("steps", Array(String), "The domain's funnel, first touch to goal."),
        _field("step_rates_7d", Array(Float64), "Rate from each step to the next in 7 days."),
        _field("step_rates_30d", Array(Float64), "Rate from each step to the next in 30 days."),
        _field("click_through_30d", Float64, "The first rate of 30 days."),
        _field("conversion_30d", Float64, "Rate from the first step to the last in 30 days."),
    ],
    source=item_conversion_source,
    description="How far an item leads through the funnel, drawn to the site's own rates.",
)

item_neighbours = FeatureView(
    name="item_neighbours",
    entities=[item],
    # Written nightly; a week bridges nights that failed.
    ttl=timedelta(days=7),
    schema=[
        _key("item_id"),
        _field("neighbour_ids", Array(String), "At most 50 items, nearest first."),
        _field("scores", Array(Float64), "Co-occurrence of each neighbour."),
    ],
    source=item_neighbours_source,
    description="Items that the same users touch.",
)

trending = FeatureView(
    name="trending",
    entities=[surface],
    # Counts 7 days: after that an unchanged list means that nothing has happened.
    ttl=timedelta(days=8),
    schema=[
        _key("surface"),
        _field("item_ids", Array(String), "At most 100 items, highest score first."),
        _field("scores", Array(Float64), "Domain weight of 7 days, halved every 24 hours."),
    ],
    source=trending_source,
    description="What the whole site touches now.",
)

user_embedding = FeatureView(
    name="user_embedding",
    entities=[user],
    # Useless once its release is gone; two days bridge a night that failed.
    ttl=timedelta(days=2),
    schema=[
        _key("user_id"),
        _field("release", String, "Release whose encoder made the vector."),
        _field("embedding", Array(Float32), "User vector; meets items of its release only."),
    ],
    source=user_embedding_push,
    description="A user as the active release sees it.",
)

item_embedding = FeatureView(
    name="item_embedding",
    entities=[item],
    ttl=timedelta(days=2),  # as for user_embedding
    schema=[
        _key("item_id"),
        _field("release", String, "Release whose item matrix holds the vector."),
        _field("embedding", Array(Float32), "Item vector; meets users of its release only."),
    ],
    source=item_embedding_push,
    description="An item as the active release sees it.",
)

BATCH_VIEWS = [
    user_activity,
    user_habits,
    user_category_affinity,
    user_searches,
    user_sequence,
    item_popularity,
    item_conversion,
    item_neighbours,
    trending,
]
"""The views that `materialize` fills from the lake."""

VIEWS = [*BATCH_VIEWS, user_embedding, item_embedding]
