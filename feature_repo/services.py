"""What a reader asks for in one call; a release names the service that it was trained for.

Ask with `full_feature_names=True`: views share names such as `events_24h`.
"""

from feast import FeatureService

from feature_repo.views import (
    item_conversion,
    item_popularity,
    user_activity,
    user_category_affinity,
    user_embedding,
    user_habits,
    user_searches,
    user_sequence,
)

serving_v1 = FeatureService(
    name="serving_v1",
    features=[user_sequence, user_embedding, user_category_affinity],
    description="What a request reads of its user: sequence, vector, tastes.",
)

ranking_v1 = FeatureService(
    name="ranking_v1",
    features=[
        user_activity,
        user_habits,
        user_category_affinity,
        user_searches,
        item_popularity,
        item_conversion,
    ],
    description="What ranks a user's candidates: what the user does and likes, how items fare.",
)
