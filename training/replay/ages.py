"""What is known of each replayed event: how old an answer to it was, how new its user and item."""

from collections.abc import Iterator

import numpy as np

from training.baselines import DAY_US
from training.dataset import NONE, Interactions, run_starts
from training.replay.timeline import HOUR_US, Timeline

FEW = 5
"""A user or an item with fewer earlier events is cold."""

AGES = {
    "live": 0,
    "under an hour": HOUR_US,
    "1 to 6 hours": 6 * HOUR_US,
    "6 to 24 hours": DAY_US,
    "1 to 3 days": 3 * DAY_US,
    "3 to 7 days": 7 * DAY_US,
    "1 to 2 weeks": 14 * DAY_US,
    "2 to 4 weeks": 28 * DAY_US,
    "4 to 8 weeks": 56 * DAY_US,
    "over 8 weeks": np.iinfo(np.int64).max,
}
"""Classes of age, with the age (microseconds) at which each ends; only 0 is live."""


def by_age(ages: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The classes that occur, and which of the ages (microseconds) fall into them (bool)."""
    names, ends = list(AGES), np.array(list(AGES.values()))
    found = np.where(ages <= 0, 0, np.searchsorted(ends[1:], ages, side="right") + 1)
    for number in np.unique(found):
        yield names[number], found == number


def groups(timeline: Timeline) -> dict[str, np.ndarray]:
    """Cold and warm users and items: which of the replayed events are theirs (bool)."""
    data, targets = timeline.everything, timeline.targets
    states = data.states[targets]
    touched = np.where(states == NONE, 0, states - data.begins[targets] + 1)
    seen = events_before(data)[targets]
    return {
        "cold users": touched < FEW,
        "warm users": touched >= FEW,
        "cold items": seen < FEW,
        "warm items": seen >= FEW,
    }


def events_before(data: Interactions) -> np.ndarray:
    """For each event, how many lie on its item before its instant."""
    order = np.lexsort((data.times, data.items))
    items, times = data.items[order], data.times[order]
    before = np.empty(len(order), dtype=np.int64)
    before[order] = run_starts(items, times) - run_starts(items)
    return before
