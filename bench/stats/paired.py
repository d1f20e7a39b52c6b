"""Metrics of several detectors on the same images: two of them apart, and which of many may be the best.

What the images have in common cancels out image by image, so a difference is known better than both of its sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from . import intervals
from .intervals import Estimate, Spread
from .measured import Class, Floats, Measured, Median, Share, spread_of, spread_of_mean
from .resampling import resampled_medians

CHANCE = 0.05
DRAWS = 4000
SEED = 20240808


class Difference(NamedTuple):
    """Of two metrics on the same images: the first minus the second."""

    estimate: Estimate
    errors: float
    """The difference in standard errors of a difference of 0: its effect size; nan where that is not known."""
    p: float
    """Two-sided, of a difference of 0; nan where a metric is undefined."""


@dataclass(frozen=True)
class Apart:
    """Two shares, image by image; means over categories."""

    value: float
    spread: Spread
    unlike: float
    """Mean over the images of how far their parts in the metric are apart."""
    same: bool
    """They are made of the same scores."""

    @classmethod
    def of(cls, a: Share, b: Share) -> Apart:
        classes = [Class(x.each - y.each, x.weight) for x, y in zip(a.classes(), b.classes(), strict=True)]
        weights = sum(one.weight for one in classes)
        unlike = sum(one.weight * float(np.abs(one.each).mean()) for one in classes) / weights
        spread = spread_of(classes)._replace(typical=a.spread.typical, most=a.spread.most)
        value = a.value - b.value
        return cls(value, spread, max(unlike, abs(value)), np.array_equal(a.scores, b.scores))

    @classmethod
    def mean(cls, parts: Sequence[Apart]) -> Apart:
        """Over categories."""
        return cls(
            float(np.mean([part.value for part in parts])),
            spread_of_mean([part.spread for part in parts]),
            float(np.mean([part.unlike for part in parts])),
            all(part.same for part in parts),
        )

    @property
    def errors(self) -> float:
        """The difference in standard errors."""
        return intervals.standard_errors(self.value, self.spread, self.unlike)

    def difference(self) -> Difference:
        if self.same:
            return Difference(Estimate(0.0, 0.0, 0.0), 0.0, 1.0)
        z = intervals.normal_quantile()
        ends = intervals.difference(self.value, self.spread, self.unlike, z)
        return Difference(Estimate(self.value, *ends), self.errors, math.erfc(abs(self.errors) / math.sqrt(2)))


def difference(a: Measured, b: Measured) -> Difference:
    """a - b, both of the same images in the same order."""
    pairs = list(zip(a.parts, b.parts, strict=True))
    shares = [(x, y) for x, y in pairs if isinstance(x, Share) and isinstance(y, Share)]
    if math.isnan(a.value) or math.isnan(b.value):
        return Difference(Estimate(math.nan, math.nan, math.nan), math.nan, math.nan)
    if len(shares) == len(pairs):
        return Apart.mean([Apart.of(x, y) for x, y in shares]).difference()
    return _of_medians([(x, y) for x, y in pairs if isinstance(x, Median) and isinstance(y, Median)])


def _of_medians(pairs: Sequence[tuple[Median, Median]]) -> Difference:
    """By a bootstrap that draws the same images for both."""
    a, b = (np.mean([resampled_medians(pair[i].values, pair[i].salt) for pair in pairs], axis=0) for i in (0, 1))
    value = float(minus(*(np.mean([pair[i].value for pair in pairs]) for i in (0, 1))))
    samples = minus(a, b)
    spread = float(samples.std()) if np.isfinite(samples).all() else math.nan
    errors = value / spread if spread else math.copysign(math.inf, value) if value else 0.0
    sides = min(int((samples <= 0).sum()), int((samples >= 0).sum()))
    p = min(2 * (sides + 1) / (len(samples) + 1), 1.0)  # never 0, which that many resamples cannot say
    method: Literal["linear", "nearest"] = "linear" if np.isfinite(samples).all() else "nearest"
    tail = (1 - intervals.LEVEL) / 2
    low, high = np.quantile(samples, [tail, 1 - tail], method=method)
    return Difference(Estimate(value, float(low), float(high)), errors, p)


def minus(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """a - b; 0 where both are the same infinity."""
    with np.errstate(invalid="ignore"):
        return np.where(np.equal(a, b), 0.0, np.subtract(a, b))


class Field:
    """Means over categories of several detectors, on the same images."""

    def __init__(self, detectors: Sequence[Sequence[Share]], sign: int = 1):
        """detectors: of each, its metrics by category in the same order; sign: -1 where less is better."""
        self._detectors, self._sign = detectors, sign

    @cached_property
    def _classes(self) -> list[list[tuple[float, Floats]]]:
        """By category, of each class its weight and what each image has to do with each detector's metric: (K, n)."""
        found = []
        for category in zip(*self._detectors, strict=True):
            by_detector = [part.classes() for part in category]
            together = zip(*by_detector, strict=True)
            found.append([(one[0].weight, np.stack([own.each for own in one])) for one in together])
        return found

    @cached_property
    def errors(self) -> Floats:
        """(K, K): by how many standard errors the second is above the first; see `Apart`."""
        spread = spread_of_mean([part.spread for part in self._detectors[0]])
        count = len(self._detectors)
        found = np.zeros((count, count))
        for i in range(count):
            above, variance, unlike = self._from(i)
            for j in range(count):
                one = spread._replace(variance=float(variance[j]))
                found[i, j] = self._sign * intervals.standard_errors(float(above[j]), one, float(unlike[j]))
        return found

    def _from(self, i: int) -> tuple[Floats, Floats, Floats]:
        """By how much each detector is above the i-th, with what variance, and how unlike they are: (K,) each."""
        categories = zip(zip(*self._detectors, strict=True), self._classes, strict=True)
        parts = [_from_one(i, np.array([part.value for part in own]), classes) for own, classes in categories]
        above, variance, unlike = (np.stack(of) for of in zip(*parts, strict=True))
        return above.mean(0), variance.sum(0) / len(parts) ** 2, unlike.mean(0)

    @cached_property
    def _largest(self) -> Floats:
        """(DRAWS, K, K): the same of detectors that are equal, as their images go together."""
        root = self._root()
        drawn = np.random.default_rng(SEED).standard_normal((DRAWS, root.shape[1])) @ root.T
        apart = np.abs(drawn[:, :, None] - drawn[:, None, :])
        scale = np.sqrt(((root[:, None] - root[None]) ** 2).sum(2))
        return np.divide(apart, scale, out=np.zeros_like(apart), where=scale > 1e-9 * scale.max(initial=0))

    def _root(self) -> Floats:
        """(K, r): root @ root.T is the covariance of the detectors' metrics."""
        covariance = np.zeros((len(self._detectors),) * 2)
        for weight, each in (one for classes in self._classes for one in classes):
            if each.shape[1] > 1:
                covariance += weight**2 * np.cov(each).reshape(covariance.shape) / each.shape[1]
        values, vectors = np.linalg.eigh(covariance)
        return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))

    def may_be_best(self) -> list[int]:
        """Those that may be the best: a model confidence set (Hansen, Lunde & Nason 2011,
        https://doi.org/10.3982/ECTA5771).

        While any two that are left differ by more than the largest difference of equal detectors does in 19 of 20
        draws, the worst leaves. So of detectors that are all equal none leaves, with a chance of 95 %, and of others
        all the best stay.
        """
        left = list(range(len(self._detectors)))
        while len(left) > 1:
            some = np.ix_(left, left)
            errors = self.errors[some].max(1)
            if errors.max() <= self._critical(left):
                break
            left.pop(int(errors.argmax()))
        return left

    def _critical(self, left: Sequence[int]) -> float:
        return float(np.quantile(self._largest[:, left][:, :, left].max((1, 2)), 1 - CHANCE))


def _from_one(i: int, values: Floats, classes: Sequence[tuple[float, Floats]]) -> tuple[Floats, Floats, Floats]:
    """`Apart.of` of every detector and the i-th, in one category."""
    above, variance, unlike = values - values[i], np.zeros(len(values)), np.zeros(len(values))
    for weight, each in classes:
        apart = each - each[i]
        unlike += weight * np.abs(apart).mean(1)
        if each.shape[1] > 1:
            variance += weight**2 * apart.var(1, ddof=1) / each.shape[1]
    unlike /= sum(weight for weight, _ in classes)
    return above, variance, np.maximum(unlike, np.abs(above))


def may_be_best(detectors: Sequence[Measured], sign: int = 1) -> list[int]:
    """Places of those that may be the best, on the same images in the same order; sign: -1 where less is better.

    Medians are compared two by two, with Bonferroni's correction.
    """
    parts = [[part for part in one.parts if isinstance(part, Share)] for one in detectors]
    if all(len(own) == len(one.parts) for own, one in zip(parts, detectors, strict=True)):
        return Field(parts, sign).may_be_best()
    best = max(detectors, key=lambda one: sign * one.value)
    pairs = len(detectors) * (len(detectors) - 1) / 2
    return [i for i, one in enumerate(detectors) if one is best or difference(one, best).p * pairs > CHANCE]
