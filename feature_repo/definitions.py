"""What `feast apply` reads: every object of the repository, each defined once in its own module."""

from typing import Any

from feature_repo.entities import item, surface, user
from feature_repo.services import ranking_v1, serving_v1
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
from feature_repo.views import (
    item_conversion,
    item_embedding,
    item_neighbours,
    item_popularity,
    trending,
    user_activity,
    user_category_affinity,
    user_embedding,
    user_habits,
    user_searches,
    user_sequence,
)

OBJECTS: list[Any] = [
    *(user, item, surface),
    *(user_activity_source, user_habits_source, user_category_affinity_source),
    *(user_searches_source, user_sequence_source),
    *(item_popularity_source, item_conversion_source, item_neighbours_source, trending_source),
    *(user_embedding_push, item_embedding_push),
    *(user_activity, user_habits, user_category_affinity, user_searches),
    *(user_sequence, user_embedding),
    *(item_popularity, item_conversion, item_neighbours, item_embedding, trending),
    *(serving_v1, ranking_v1),
]
