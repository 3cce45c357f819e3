"""A small world in which each thing leads to the next one."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from nearline.domains import load_domain
from nearline.schema import ITEM_SCHEMA
from nearline.settings import settings
from training.recipe import Recipe, load_recipe
from training.replay import models
from training.replay.timeline import Timeline, make_timeline

HOUR = 3600
ITEMS = 30
Events = Callable[[str], pa.Table]


@pytest.fixture(autouse=True)
def quick(home: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, and the smallest of models."""
    monkeypatch.setenv("NEARLINE_TRAIN_THREADS", "1")
    settings.cache_clear()
    monkeypatch.setattr(models, "load_recipe", lambda size: tiny())


def tiny() -> Recipe:
    small = load_recipe("small")
    shape = {"dim": 16, "heads": 2, "layers": 1, "length": 8, "content_buckets": 64}
    learning = {"epochs": 30, "patience": 30, "learning_rate": 0.01, "batch_tokens": 256}
    learning |= {"warm_learning_rate": 0.01}
    return Recipe(
        model=small.model.model_copy(update=shape | {"dropout": 0.0}),
        learning=small.learning.model_copy(update=learning),
    )


def orderly(*, users: int = 40, length: int = 9, days: int = 8) -> str:
    """Rows: each user goes round the items one by one, from a place and a moment of its own."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(users):
        first, second = int(rng.integers(ITEMS)), int(rng.integers(days * 24 * HOUR - 40 * HOUR))
        rows += [
            f"u{user:02} i{(first + step) % ITEMS:02} play {second + step * 4 * HOUR}"
            for step in range(length)
        ]
    return "\n".join(rows)


@pytest.fixture
def world(events: Events) -> Timeline:
    """360 events of eight days; the last four tenths are replayed."""
    return timeline(events(orderly()))


def timeline(table: pa.Table, *, from_share: float = 0.6) -> Timeline:
    domain = load_domain("entertainment")
    return make_timeline(table, ITEM_SCHEMA.empty_table(), domain, from_share)
