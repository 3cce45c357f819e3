"""Feast's features as they stood at past hours: what an online read would have answered then."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from nearline.ranking import ITEM_FEATURES, USER_FEATURES, RankedUser, named
from nearline.schema import ITEM_ID, TIMESTAMP, USER_ID

_MOMENT = "event_timestamp"
TRENDING = ("trending:item_ids", "trending:scores")


def users_at(user_ids: Sequence[str], hours: np.ndarray) -> list[RankedUser]:
    """What was known of each user at an hour (microseconds)."""
    rows = _asked(USER_ID, user_ids, hours, USER_FEATURES).to_pylist()
    return [RankedUser.of(row) for row in rows]


def items_at(item_ids: Sequence[str], hours: np.ndarray) -> np.ndarray:
    """ITEM_FEATURES of each item at an hour (microseconds), float32 (items, features)."""
    found = _asked(ITEM_ID, item_ids, hours, ITEM_FEATURES)
    columns = [found[named(name)].cast(pa.float32()).to_numpy() for name in ITEM_FEATURES]
    return np.column_stack(columns)


def trending_at(hours: np.ndarray) -> list[list[tuple[str, float]]]:
    """The site's trending list at each hour (microseconds), best first."""
    rows = _asked("surface", ["all"] * len(hours), hours, TRENDING).to_pylist()
    pairs = ([row[named(name)] or [] for name in TRENDING] for row in rows)
    return [list(zip(*each, strict=True)) for each in pairs]


def _asked(key: str, ids: Sequence[str], hours: np.ndarray, features: Sequence[str]) -> pa.Table:
    """The features of each key at an hour, in the order asked."""
    import pandas as pd

    from feature_repo.store import open_store

    asked = pd.DataFrame(
        {
            key: list(ids),
            _MOMENT: pa.array(hours, TIMESTAMP).to_pandas(),
            "place": np.arange(len(ids)),
        }
    )
    job = open_store().get_historical_features(asked, list(features), full_feature_names=True)
    return job.to_arrow().sort_by("place")
