"""Metrics from rows alone, each with a stratified bootstrap interval.

A metric is a function of raw scores and labels (1 = anomalous); ties count half, as in scikit-learn. The interval
resamples normal and anomalous images separately and computes all resamples at once, from counted pairs or weighted
cumulative counts: scikit-learn takes one at a time. Tests compare values and resamples with scikit-learn's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

RESAMPLES = 1000
LEVEL = 0.95
BOOTSTRAP_SEED = 20240808
CHUNK = 2**22  # weights held at a time: resamples x images


class Estimate(NamedTuple):
    """A value and its bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Curves(NamedTuple):
    """Weighted counts at or above each threshold, the highest threshold first: (thresholds, resamples) each."""

    hits: Floats
    alarms: Floats


def average_precision(curves: Curves) -> Floats:
    """Sum over thresholds of precision times the gain in recall."""
    precision = curves.hits + curves.alarms
    np.maximum(precision, 1, out=precision)  # 0 above the first image that is in a resample
    np.divide(curves.hits, precision, out=precision)
    first = precision[0] * curves.hits[0]
    others = np.einsum("ij,ij->j", precision[1:], curves.hits[1:] - curves.hits[:-1])
    return np.asarray(np.divide(first + others, curves.hits[-1], dtype=np.float64))


def fpr_at_95_tpr(curves: Curves) -> Floats:
    """Least share of normal images flagged by a threshold that flags at least 95 % of the anomalous ones."""
    enough = (0.95 - 1e-6) * curves.hits[-1]  # less than one image short of it, in any precision
    first = (curves.hits >= enough).argmax(0)
    alarms = curves.alarms[first, np.arange(len(first))]
    return np.asarray(np.divide(alarms, curves.alarms[-1], dtype=np.float64))


FROM_CURVES: dict[str, Callable[[Curves], Floats]] = {"ap": average_precision, "fpr95": fpr_at_95_tpr}
RANKINGS = ("auroc", *FROM_CURVES)
"""The area under the ROC curve, the chance that an anomalous image scores above a normal one, comes from pairs."""


class Bootstrap(NamedTuple):
    """A value and what it was in every resample."""

    value: float
    samples: Floats

    def estimate(self) -> Estimate:
        ordered = np.sort(self.samples)
        tail = (1 - LEVEL) / 2
        low, high = _quantile(ordered, tail), _quantile(ordered, 1 - tail)
        if ordered.dtype == np.float32:  # whose further digits say nothing
            low, high = (float(f"{end:.7g}") for end in (low, high))
        return Estimate(self.value, low, high)


def _quantile(ordered: Floats, share: float) -> float:
    """Of sorted numbers, as numpy's: interpolated, or the nearest where one of them is infinite."""
    if np.isnan(ordered[-1]):
        return float("nan")
    place = share * (len(ordered) - 1)
    below, above = float(ordered[int(place)]), float(ordered[min(int(place) + 1, len(ordered) - 1)])
    if np.isinf(ordered[[0, -1]]).any():
        return float(ordered[round(place)])
    return below + (place - int(place)) * (above - below)


def mean(parts: Sequence[Bootstrap]) -> Bootstrap:
    """The mean over categories; their images were resampled independently."""
    if len(parts) == 1:
        return parts[0]
    return Bootstrap(float(np.mean([p.value for p in parts])), np.mean([p.samples for p in parts], axis=0))


def ranking(scores: npt.ArrayLike, labels: npt.ArrayLike, salt: str = "") -> dict[str, Bootstrap]:
    """Every ranking metric, from the same resamples; nan where a class is missing.

    `salt` (a category's name, say) separates the resamples of data sets whose intervals are to be combined.
    """
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if not y.any() or y.all():
        return dict.fromkeys(RANKINGS, _unknown())
    found: dict[str, list[Floats]] = {name: [] for name in FROM_CURVES}
    for weights in _weights(y, salt):
        curves = _curves(s, y, weights)
        for name, resampled in found.items():
            resampled.append(FROM_CURVES[name](curves))
    whole = points(s, y)
    others = {name: Bootstrap(whole[name], np.concatenate(parts)) for name, parts in found.items()}
    return {"auroc": auroc_of(s, y, salt), **others}


def auroc_of(scores: npt.ArrayLike, labels: npt.ArrayLike, salt: str = "") -> Bootstrap:
    """The AUROC of `ranking` alone, by counting pairs."""
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if not y.any() or y.all():
        return _unknown()
    wins = _wins(s, y)
    exact = wins.size < 2**22  # whole and half numbers up to there, in single precision
    wins = wins.astype(np.float32) if exact else wins
    samples = [np.einsum("ij,ij->j", w[y], wins @ w[~y]) for w in _weights(y, salt)]
    return Bootstrap(float(wins.mean(dtype=np.float64)), np.concatenate(samples, dtype=np.float64) / wins.size)


def _wins(scores: Floats, labels: npt.NDArray[np.bool_]) -> Floats:
    """(anomalous, normal): 1 where the anomalous image is above the normal one, 1/2 where they tie."""
    anomalous, normal = scores[labels][:, None], scores[~labels]
    return ((anomalous > normal) + (anomalous >= normal).astype(np.float64)) / 2


def _unknown() -> Bootstrap:
    return Bootstrap(np.nan, np.full(RESAMPLES, np.nan))


class Metrics(Mapping[str, Bootstrap]):
    """Metrics by name, each computed when it is first asked for; resamples are kept in single precision."""

    def __init__(self, makers: Mapping[str, Callable[[], Bootstrap]]):
        self._makers, self._found = makers, dict[str, Bootstrap]()
        self._estimates: dict[str, Estimate] = {}

    def __getitem__(self, name: str) -> Bootstrap:
        if name not in self._found:
            made = self._makers[name]()
            self._found[name] = made._replace(samples=made.samples.astype(np.float32))
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


def conservative(scores: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """The same order with every tie decided against the detector, and no infinity: for bounds, where a pair counts only
    if the anomalous image is surely above the normal one."""
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    places = np.unique(s, return_inverse=True)[1]
    return np.asarray(2.0 * places + ~y)


def points(scores: npt.ArrayLike, labels: npt.ArrayLike) -> dict[str, float]:
    """The values of `ranking` without their resamples; nan where a class is missing."""
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if not y.any() or y.all():
        return dict.fromkeys(RANKINGS, float("nan"))
    curves = _curves(s, y, np.ones((len(y), 1)))
    values = {name: float(metric(curves)[0]) for name, metric in FROM_CURVES.items()}
    return {"auroc": float(_wins(s, y).mean()), **values}


def accuracy(scores: npt.ArrayLike, labels: npt.ArrayLike, threshold: float, salt: str = "") -> Bootstrap:
    """Share of images on the right side of a threshold fixed beforehand; a score equal to it counts as normal."""
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if np.isnan(threshold):
        return _unknown()
    right = ((s > threshold) == y).astype(np.float32)
    counts = np.concatenate([right @ weights for weights in _weights(y, salt)], dtype=np.float64)
    return Bootstrap(float(right.mean(dtype=np.float64)), counts / len(s))


def median(values: npt.ArrayLike, salt: str = "") -> Bootstrap:
    """The median of one class's numbers, which may be inf; nan where there are none."""
    v = np.asarray(values, dtype=np.float64)
    if not len(v):
        return _unknown()
    order, found = np.argsort(v, kind="stable"), []
    v = v[order]
    for weights in _weights(np.zeros(len(v), dtype=bool), salt):
        below = weights[order].cumsum(0)  # a weight is that of an image, so that two detectors are paired
        # the two middle ones of each resample, or twice the one
        lower = v[(below >= len(v) / 2).argmax(0)]
        upper = v[(below >= len(v) // 2 + 1).argmax(0)]
        found.append((lower + upper) / 2)
    return Bootstrap(float(np.median(v)), np.concatenate(found))


def _weights(labels: npt.NDArray[np.bool_], salt: str) -> Iterator[Floats]:
    """How often each image is in each resample (images, resamples), in chunks; both classes keep their sizes."""
    if RESAMPLES * len(labels) <= CHUNK:
        yield _all_weights(labels.tobytes(), salt)
    else:
        yield from _chunks(labels, salt)


@lru_cache(maxsize=16)
def _all_weights(labels: bytes, salt: str) -> Floats:
    """In one chunk: the cells of a category share them."""
    (weights,) = _chunks(np.frombuffer(labels, dtype=bool), salt)
    weights.flags.writeable = False
    return weights


def _chunks(labels: npt.NDArray[np.bool_], salt: str) -> Iterator[Floats]:
    rng = np.random.default_rng([BOOTSTRAP_SEED, *salt.encode()])
    per_chunk = max(CHUNK // len(labels), 1)
    for done in range(0, RESAMPLES, per_chunk):
        count = min(per_chunk, RESAMPLES - done)
        weights = np.zeros((len(labels), count), dtype=np.float32)
        for label in (False, True):
            index = np.flatnonzero(labels == label)
            if len(index):
                weights[index] = rng.multinomial(len(index), np.full(len(index), 1 / len(index)), size=count).T
        yield weights


def _curves(scores: Floats, labels: npt.NDArray[np.bool_], weights: Floats) -> Curves:
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    y = labels[order]
    hits, alarms = (_added_up(weights[order] * one[:, None].astype(weights.dtype)) for one in (y, ~y))
    if len(last_of_tie) < len(order):
        hits, alarms = hits[last_of_tie], alarms[last_of_tie]
    return Curves(hits, alarms)


def _added_up(counts: Floats) -> Floats:
    """The cumulative sum down the rows, in place: numpy's goes column by column, which is fast for one alone."""
    if counts.shape[1] == 1:
        return np.cumsum(counts, axis=0, out=counts)
    for above, row in itertools.pairwise(counts):
        row += above
    return counts
