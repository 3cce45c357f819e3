"""Intervals of shares that are counted over users, or hours, of which each has many trials.

The lists of one user are alike: as many lists of as many users would tell more. The variance of the
share is that of a ratio of sums over these clusters (the delta method: Deng, Knoblich, Lu,
"Applying the Delta Method in Metric Analytics", KDD 2018, eq. 3), and the interval is Wilson's
(1927) for so many independent trials as have this variance.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z_95 = 1.959964
"""Standard deviations of an interval that holds 95 in 100 times."""

NOT_BY_CHANCE_Z = 3.29
"""Standard deviations of an interval that holds but once in a thousand times not."""


@dataclass(frozen=True)
class Interval:
    """A value, and the bounds between which it lies with the confidence asked for."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> "Interval":
        """So many times the value; `factor` is not negative."""
        return Interval(factor * self.value, factor * self.low, factor * self.high)

    def minus(self, other: "Interval") -> "Interval":
        """The difference of two independent shares (Newcombe 1998, method 10)."""
        value = self.value - other.value
        down = math.hypot(self.value - self.low, other.high - other.value)
        up = math.hypot(self.high - self.value, other.value - other.low)
        return Interval(value, value - down, value + up)


def wilson(share: float, trials: float, *, z: float = Z_95) -> Interval:
    """The interval of a share of so many independent trials; all that is possible without any."""
    if trials <= 0:
        return Interval(share, 0.0, 1.0)
    scale = 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / scale
    half = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2) / scale
    return Interval(share, max(middle - half, 0.0), min(middle + half, 1.0))


def clustered_share(hits: Sequence[int], trials: Sequence[int], *, z: float = Z_95) -> Interval:
    """The share of trials that were hits, one entry a cluster: a user, or an hour.

    Where all or none were hits, a cluster's trials count as one: nothing tells how alike they are.
    """
    hit, tried = (np.asarray(each, dtype=np.float64) for each in (hits, trials))
    clusters, total = len(tried), float(tried.sum())
    if not total:
        return wilson(0.0, 0, z=z)
    share = float(hit.sum()) / total
    spread = float(((hit - share * tried) ** 2).sum()) / total**2
    if clusters < 2 or not spread:
        return wilson(share, clusters, z=z)
    variance = spread * clusters / (clusters - 1)
    return wilson(share, min(share * (1 - share) / variance, total), z=z)
