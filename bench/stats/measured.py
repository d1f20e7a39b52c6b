"""A metric of some images: its value, its interval, and what each image has to do with it.

`Share` is a metric in [0, 1] that is, near enough, a mean over images, so that two of the same images are compared
image by image. `Median` is one of numbers without a limit. `mean` is that over categories.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import intervals
from .intervals import Estimate, Spread

Floats = npt.NDArray[np.floating[Any]]
Ends = Callable[[float], tuple[float, float]]
"""Of an interval, given the normal quantile z."""


class Class(NamedTuple):
    """The images of one class."""

    each: Floats
    """(n,): what each image has to do with the metric."""
    weight: float = 1.0
    """Of their mean in the metric."""


class Measured:
    """A metric with its interval."""

    value: float

    def ends(self, z: float) -> tuple[float, float]:
        """(low, high) of the interval whose normal quantile is z."""
        raise NotImplementedError

    @property
    def parts(self) -> Sequence[Measured]:
        """By category; of one category itself."""
        return (self,)

    def averaged(self, others: Sequence[Measured]) -> Measured:
        """Over categories; `others` are all of them."""
        return Mean(tuple(others))

    def estimate(self) -> Estimate:
        return Estimate(self.value, *self.ends(intervals.normal_quantile()))


@dataclass(frozen=True, eq=False)
class Share(Measured):
    """A metric in [0, 1]; nan where it is not defined."""

    value: float
    spread: Spread
    scores: Floats
    """(N,): what it was made of. Who has the same has the same metric on any images."""
    classes: Callable[[], Sequence[Class]]
    own_ends: Ends | None = None
    """Where the spread does not say it."""

    def ends(self, z: float) -> tuple[float, float]:
        return self.own_ends(z) if self.own_ends else intervals.share(self.value, self.spread, z)


@dataclass(frozen=True, eq=False)
class Median(Measured):
    """The median of numbers, which may be inf; nan where there are none."""

    values: Floats
    """(n,)"""
    salt: str
    """Of the resamples that differences are made of."""

    @cached_property
    def value(self) -> float:  # type: ignore[override]
        return float(np.median(self.values)) if len(self.values) else math.nan

    def ends(self, z: float) -> tuple[float, float]:
        n = len(self.values)
        if not n:
            return math.nan, math.nan
        ordered = np.sort(self.values)
        first, last = intervals.quantile_ranks(n, 0.5, z)
        return float(ordered[max(first, 0)]), float(ordered[min(last, n - 1)])


@dataclass(frozen=True, eq=False)
class Mean(Measured):
    """Over categories, whose images are independent."""

    of: Sequence[Measured]

    @property
    def parts(self) -> Sequence[Measured]:
        return self.of

    @cached_property
    def value(self) -> float:  # type: ignore[override]
        return float(np.mean([part.value for part in self.of]))

    def ends(self, z: float) -> tuple[float, float]:
        shares = [part for part in self.of if isinstance(part, Share) and not part.own_ends]
        if len(shares) == len(self.of):
            return intervals.share(self.value, spread_of_mean([part.spread for part in shares]), z)
        each = [(part.value, *part.ends(z)) for part in self.of]
        if not np.isfinite(each).all():
            return tuple(np.mean([ends[1:] for ends in each], axis=0).tolist())
        arms = [((value - low) / len(each), (high - value) / len(each)) for value, low, high in each]
        return intervals.recovered(self.value, arms)


def mean(parts: Sequence[Measured]) -> Measured:
    """Over categories; of one, itself."""
    return parts[0] if len(parts) == 1 else parts[0].averaged(parts)


def together(shares: Sequence[Share]) -> Share:
    """The mean of several metrics of the same images."""
    if len(shares) == 1:
        return shares[0]

    def classes() -> list[Class]:
        parts = [share.classes() for share in shares]
        return [Class(np.mean([one.each for one in own], axis=0), own[0].weight) for own in zip(*parts, strict=True)]

    value = float(np.mean([share.value for share in shares]))
    first = shares[0].spread
    spread = spread_of(classes())._replace(typical=first.typical, most=first.most) if math.isfinite(value) else first
    return Share(value, spread, np.concatenate([share.scores for share in shares]), classes)


def spread_of_mean(spreads: Sequence[Spread]) -> Spread:
    """Of independent metrics."""
    return Spread(*(sum(numbers) / len(spreads) ** 2 for numbers in zip(*spreads, strict=True)))


def spread_of(classes: Sequence[Class]) -> Spread:
    """Of a metric to which the images of each class contribute independently."""
    variance = sum(one.weight**2 * _variance(one.each) for one in classes)
    weights = sum(one.weight for one in classes)
    typical = sum(one.weight / len(one.each) for one in classes) / weights
    return Spread(float(variance), typical, max(1 / len(one.each) for one in classes))


def _variance(each: Floats) -> float:
    """Of the mean; 0 of one image, which shows none."""
    return float(each.var(ddof=1)) / len(each) if len(each) > 1 else 0.0


class Metrics(Mapping[str, Measured]):
    """Metrics by name, each computed when it is first asked for."""

    def __init__(self, makers: Mapping[str, Callable[[], Measured]]):
        self._makers, self._found = makers, dict[str, Measured]()
        self._estimates: dict[str, Estimate] = {}

    def __getitem__(self, name: str) -> Measured:
        if name not in self._found:
            self._found[name] = self._makers[name]()
        return self._found[name]

    def estimate(self, name: str) -> Estimate:
        """Its value and interval."""
        if name not in self._estimates:
            self._estimates[name] = self[name].estimate()
        return self._estimates[name]

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)
