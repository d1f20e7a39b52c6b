"""Intervals that hold what they promise near 0 and 1, where a metric has hardly any spread left to see.

A metric in [0, 1] that is a mean over images has a variance that the images show (DeLong et al. 1988 of an AUROC), but
they show none where all pairs are ranked right, and too little just before. So the variance is taken relative to
theta * (1 - theta), what a share of one image would have, and drawn a little towards the largest that it can be:
1 / `Spread.shrunk` is the number of images that the interval goes by. With it the score interval (Wilson 1927) is that
of a share. Where single images decide all or nothing, as in an accuracy or an AUROC whose errors are outliers, a share
takes few values, and the score interval misses too often: there the ends are beta quantiles halfway between those of
Jeffreys and of Clopper and Pearson. docs/statistics.md has the measured coverage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

LEVEL = 0.95
TRUST = 0.2
"""Weight of the largest possible variance, as a part of an image of each class."""
PAIRED_TRUST = 0.02
"""The same of a difference: two detectors on the same images have more to show."""
LUMPS = 8
"""How steeply the beta quantiles take over as the variance goes to its largest possible value."""
CORRECTION = 0.75
"""Of the beta quantiles: 1/2 is Jeffreys', 1 is Clopper and Pearson's."""


class Estimate(NamedTuple):
    """A value and its 95 % interval, over test images."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Spread(NamedTuple):
    """How far a metric in [0, 1] is from what it would be on endless images. All three add up over categories."""

    variance: float
    """As the images show it."""
    typical: float
    """Mean over the classes of 1 / images."""
    most: float
    """The variance of an all-or-nothing metric over theta * (1 - theta): 1 / images of the smaller class."""

    def shrunk(self, room: float, trust: float = TRUST) -> float:
        """Variance over `room`, which is theta * (1 - theta) of a metric."""
        weight = trust * self.typical
        return (self.variance + weight * self.typical) / (room + weight)


def normal_quantile(level: float = LEVEL) -> float:
    """Of a two-sided interval."""
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))


def share(value: float, spread: Spread, z: float) -> tuple[float, float]:
    """(low, high) in [0, 1]; mirrored where 0 and 1 change places. nan of nan."""
    if math.isnan(value):
        return math.nan, math.nan
    relative = spread.shrunk(value * (1 - value))
    low, high = wilson(value, relative, z)
    lumps = min(relative / spread.most, 1.0) ** LUMPS
    if lumps > 1e-3:  # else below the digits that anybody is shown
        down, up = _beta(value, 1 / relative, z)
        low, high = low + lumps * (min(down, low) - low), high + lumps * (max(up, high) - high)
    return max(min(low, value), 0.0), min(max(high, value), 1.0)


def wilson(value: float, relative: float, z: float) -> tuple[float, float]:
    """All theta with |value - theta| <= z sqrt(relative * theta * (1 - theta)); 1 / relative images (Wilson 1927)."""
    k = z * z * relative
    centre, half = value + k / 2, z * math.sqrt(relative * (value * (1 - value) + k / 4))
    return (centre - half) / (1 + k), (centre + half) / (1 + k)


def _beta(value: float, images: float, z: float) -> tuple[float, float]:
    """Beta quantiles of a share of so many images."""
    from scipy.special import betaincinv, ndtr

    tail = float(ndtr(-z))
    right, wrong = images * value, images * (1 - value)
    low = float(betaincinv(right + 1 - CORRECTION, wrong + CORRECTION, tail)) if right else 0.0
    high = 1 - float(betaincinv(wrong + 1 - CORRECTION, right + CORRECTION, tail)) if wrong else 1.0
    return low, high


def recovered(value: float, arms: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The interval of a sum of independent metrics from the arms of theirs, down and up (MOVER: Zou & Donner 2008)."""
    down, up = (math.hypot(*sides) for sides in zip(*arms, strict=True))
    return value - down, value + up


def quantile_ranks(n: int, share_below: float, z: float) -> tuple[int, int]:
    """Ranks (from 0) of the order statistics between which the quantile of `share_below` lies; -1 and n where the
    sample does not reach as far. Exact: the number of images below a quantile is binomial."""
    from scipy.special import ndtr
    from scipy.stats import binom

    tail = float(ndtr(-z))
    return int(binom.ppf(tail, n, share_below)) - 1, int(binom.isf(tail, n, share_below))


def false_alarms(rank: int, held_out: int, level: float = LEVEL) -> tuple[float, float]:
    """What share of new normal images may lie above the `rank`-th smallest score of `held_out` ones (rank from 1).

    The share is a beta variable whatever the distribution of the scores, if that has no ties.
    """
    from scipy.stats import beta

    tail = (1 - level) / 2
    low, high = beta.ppf([tail, 1 - tail], held_out - rank + 1, rank)
    return float(low), float(high)


def difference(value: float, spread: Spread, unlike: float, z: float) -> tuple[float, float]:
    """(low, high) of the difference of two metrics on the same images, in [-1, 1]; swapped, it is mirrored.

    spread: of the difference. unlike: how far the two are apart image by image, whichever is better: at least |value|,
    and all that a difference can come from. It stands where theta * (1 - theta) does of one metric, as the share of
    discordant pairs in the score interval of Tango (1998), which this is for endless weight of the images.
    """
    k = z * z * spread.shrunk(unlike - value * value, PAIRED_TRUST)
    return -_furthest(-value, unlike, k), _furthest(value, unlike, k)


def _furthest(value: float, unlike: float, k: float) -> float:
    """Largest x with (x - value)^2 <= k (max(unlike, x) - x^2)."""
    x = (value + math.sqrt(k * max((1 + k) * unlike - value * value, 0.0))) / (1 + k)
    if x >= unlike:
        b = 2 * value + k
        x = (b + math.sqrt(max(b * b - 4 * (1 + k) * value * value, 0.0))) / (2 * (1 + k))
    return min(max(x, value), 1.0)


def standard_errors(value: float, spread: Spread, unlike: float) -> float:
    """A difference in those standard errors that it would have if it were 0: `difference` holds 0 while that is at most
    z."""
    if value == 0:
        return 0.0
    return value / math.sqrt(spread.shrunk(unlike - value * value, PAIRED_TRUST) * unlike)
