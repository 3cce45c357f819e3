"""The made-up world behind a synthetic stream: who lives there, what there is, what is wanted when.

Its shape follows real logs (docs/explanation/synthetic.md): popularity falls by a
Zipf-Mandelbrot law (Mandelbrot 1953), users' activity is log-normal, tastes are few and hidden.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

KINDS = 24
"""Categories that the catalogue tells."""

_ITEMS_A_STYLE = 200
_MOST_STYLES = 960
_TASTES = 3
_POPULARITY_FALL = 1.1
_FLAT_HEAD = 0.01
_ACTIVITY_SPREAD = 0.75
_THERE_BEFORE = 0.7
_OLDEST_DAYS = 365
_NOVELTY_GAIN = 1.5
_NOVELTY_DAYS = 7.0
_ITEMS_A_BURST = 2000
_BURST_DAYS = 4
_BURST_GAIN = 20.0
_WEEKS_PRESENT = 0.5


@dataclass(frozen=True)
class Shelf:
    """What is wanted on one day, to draw items from.

    `items` are ordered by style; `until` is the running sum of their weights; style `s` takes the
    stretch from `bounds[s]` to `bounds[s + 1]` of it.
    """

    items: Ints
    until: Floats
    bounds: Floats

    def draw(self, rng: np.random.Generator, styles: Ints, anywhere: npt.NDArray[np.bool_]) -> Ints:
        """An item for each of `styles`; where `anywhere`, or where a style has none, any item."""
        low, high = self.bounds[styles], self.bounds[styles + 1]
        free = anywhere | (high <= low)
        low, high = np.where(free, 0.0, low), np.where(free, self.until[-1], high)
        spots = np.minimum(
            low + rng.random(len(styles)) * (high - low), np.nextafter(self.until[-1], 0)
        )
        return self.items[np.searchsorted(self.until, spots, side="right")]


class World:
    """Users and items of a stream, from its seed alone. Days count from 0.

    An item has a hidden `style` within its `kind`, and the day it was `born`. A user has three
    styles at first and three at last, and drifts from the ones to the others.
    """

    def __init__(self, users: int, items: int, days: int, seed: int) -> None:
        self._users, self._days, self._seed = users, days, seed
        rng = np.random.default_rng([seed, 0])
        self.styles = int(np.clip(items // _ITEMS_A_STYLE, KINDS, _MOST_STYLES))
        self.style = rng.integers(0, self.styles, items, dtype=np.int32)
        self.born = _first_days(rng, items, days)
        self.price = np.round(rng.lognormal(3, 1, items), 2)
        self.quality = rng.beta(4, 2, items)
        self._popularity = _popularity(rng, items)
        self._bursts = rng.integers(0, items, (days, 1 + items // _ITEMS_A_BURST), dtype=np.int32)
        self._activity = rng.lognormal(0, _ACTIVITY_SPREAD, users).astype(np.float32)
        self._joined = _first_days(rng, users, days)
        self.peak_hour = (rng.normal(17, 4, users) % 24).astype(np.float32)
        self._tastes = self._draw_tastes(rng)

    def _draw_tastes(self, rng: np.random.Generator) -> Ints:
        """Styles as often liked as their items are popular: (users, first and last, tastes)."""
        liked = np.cumsum(np.bincount(self.style, self._popularity, self.styles))
        spots = rng.random((self._users, 2, _TASTES), dtype=np.float32) * liked[-1]
        drawn = np.searchsorted(liked, spots, side="right").astype(np.int16)
        return np.minimum(drawn, self.styles - 1)

    def visitors(self, rng: np.random.Generator, day: int, count: int) -> Ints:
        """Who comes on a day, once for each session: those who have joined, in some weeks only."""
        week = np.random.default_rng([self._seed, 2, day // 7])
        present = week.random(self._users, dtype=np.float32) < _WEEKS_PRESENT
        weight = np.where(present & (self._joined <= day), self._activity, 0)
        if not weight.any():
            weight = self._activity
        until = np.cumsum(weight, dtype=np.float64)
        spots = np.minimum(rng.random(count) * until[-1], np.nextafter(until[-1], 0))
        return np.searchsorted(until, spots, side="right")

    def tastes(self, rng: np.random.Generator, day: int, users: Ints) -> Ints:
        """A style that each user likes on a day; late in the stream more often one of the last."""
        late = rng.random(len(users)) < day / max(self._days - 1, 1)
        rank = np.searchsorted([0.6, 0.85], rng.random(len(users)))
        return self._tastes[users, late.astype(np.int8), rank]

    def shelf(self, day: int) -> Shelf:
        """What is wanted on a day: by popularity, more while an item is new or in a burst."""
        age = day - self.born
        weight: Floats = self._popularity * (
            1 + _NOVELTY_GAIN * np.exp(-np.maximum(age, 0) / _NOVELTY_DAYS)
        )
        weight[age < 0] = 0.0
        for since in range(min(_BURST_DAYS, day + 1)):
            weight[self._bursts[day - since]] *= _BURST_GAIN / (1 + since) ** 2
        if not weight.any():
            weight = self._popularity
        order = np.argsort(self.style, kind="stable")
        until = np.cumsum(weight[order])
        ends = np.searchsorted(self.style[order], np.arange(self.styles), side="right")
        return Shelf(order, until, np.concatenate([[0.0], np.concatenate([[0.0], until])[ends]]))


def _first_days(rng: np.random.Generator, count: int, days: int) -> Ints:
    """The day each came: most before the stream began (below 0), the rest on its days."""
    before = -rng.integers(1, _OLDEST_DAYS + 1, count, dtype=np.int32)
    during = rng.integers(0, days, count, dtype=np.int32)
    return np.where(rng.random(count) < _THERE_BEFORE, before, during)


def _popularity(rng: np.random.Generator, count: int) -> Floats:
    """Shares that fall with a shuffled rank, flat among the first few; they add up to one."""
    weight = (np.arange(1, count + 1) + _FLAT_HEAD * count) ** -_POPULARITY_FALL
    shuffled: Floats = rng.permutation(weight / weight.sum())
    return shuffled
