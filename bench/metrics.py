"""Metrics from rows alone, each with a stratified bootstrap interval.

A metric is a function of raw scores and labels (1 = anomalous); ties count half, as in scikit-learn. The point value is
scikit-learn's (of AUROC, counted over pairs; a test compares). The interval resamples normal and anomalous images
separately and computes all resamples at once from weighted cumulative counts, which a test compares with
scikit-learn's sample weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 2000
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
    """Weighted counts at or above each threshold, the highest threshold first: (resamples, thresholds) each."""

    hits: Floats
    alarms: Floats


def auroc(curves: Curves) -> Floats:
    """Area under the ROC curve: the chance that an anomalous image scores above a normal one."""
    tpr, fpr = _rates(curves)
    return np.asarray(np.trapezoid(tpr, fpr, axis=1))


def average_precision(curves: Curves) -> Floats:
    """Sum over thresholds of precision times the gain in recall."""
    tpr, _ = _rates(curves)
    flagged = curves.hits + curves.alarms
    precision = np.divide(curves.hits, flagged, out=np.ones_like(flagged), where=flagged > 0)
    return np.asarray((np.diff(tpr, axis=1) * precision[:, 1:]).sum(1))


def fpr_at_95_tpr(curves: Curves) -> Floats:
    """Least share of normal images flagged by a threshold that flags at least 95 % of the anomalous ones."""
    tpr, fpr = _rates(curves)
    first = (tpr >= 0.95 - 1e-12).argmax(1)
    return np.asarray(fpr[np.arange(len(fpr)), first])


METRICS: dict[str, Callable[[Curves], Floats]] = {"auroc": auroc, "ap": average_precision, "fpr95": fpr_at_95_tpr}


class Bootstrap(NamedTuple):
    """A value and what it was in every resample."""

    value: float
    samples: Floats

    def estimate(self) -> Estimate:
        tail = 100 * (1 - LEVEL) / 2
        # between two samples of which one is infinite there is nothing to interpolate
        infinite = bool(np.isinf(self.samples).any())
        low, high = np.percentile(self.samples, [tail, 100 - tail], method="nearest" if infinite else "linear")
        return Estimate(self.value, float(low), float(high))


def mean(parts: Sequence[Bootstrap]) -> Bootstrap:
    """The mean over categories; their images were resampled independently."""
    return Bootstrap(float(np.mean([p.value for p in parts])), np.mean([p.samples for p in parts], axis=0))


def ranking(scores: npt.ArrayLike, labels: npt.ArrayLike, salt: str = "") -> dict[str, Bootstrap]:
    """Every ranking metric, from the same resamples; nan where a class is missing.

    `salt` (a category's name, say) separates the resamples of data sets whose intervals are to be combined.
    """
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if not y.any() or y.all():
        return dict.fromkeys(METRICS, Bootstrap(np.nan, np.full(RESAMPLES, np.nan)))
    resampled: dict[str, list[Floats]] = {name: [] for name in METRICS}
    for weights in _weights(y, salt):
        curves = _curves(s, y, weights)
        for name, metric in METRICS.items():
            resampled[name].append(metric(curves))
    return {name: Bootstrap(value, np.concatenate(resampled[name])) for name, value in points(s, y).items()}


def auroc_of(scores: npt.ArrayLike, labels: npt.ArrayLike, salt: str = "") -> Bootstrap:
    """The AUROC of `ranking` alone, from the same resamples, by counting pairs: several times as fast."""
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if not y.any() or y.all():
        return Bootstrap(np.nan, np.full(RESAMPLES, np.nan))
    anomalous, normal = s[y][:, None], s[~y]
    wins = ((anomalous > normal) + (anomalous >= normal).astype(np.float64)) / 2  # a tie is half a win
    samples = [np.einsum("ij,ij->i", w @ wins, v) for w, v in _weights_by_class(y, salt)]
    return Bootstrap(float(wins.mean()), np.concatenate(samples) / wins.size)


class Metrics(Mapping[str, Bootstrap]):
    """Metrics by name, each computed when it is first asked for."""

    def __init__(self, makers: Mapping[str, Callable[[], Bootstrap]]):
        self._makers, self._found = makers, dict[str, Bootstrap]()

    def __getitem__(self, name: str) -> Bootstrap:
        if name not in self._found:
            self._found[name] = self._makers[name]()
        return self._found[name]

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


def points(scores: Floats, labels: npt.NDArray[np.bool_]) -> dict[str, float]:
    """The point values, by scikit-learn."""
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    return {
        "auroc": float(roc_auc_score(labels, scores)),
        "ap": float(average_precision_score(labels, scores)),
        "fpr95": float(fpr[(tpr >= 0.95 - 1e-12).argmax()]),
    }


def accuracy(scores: npt.ArrayLike, labels: npt.ArrayLike, threshold: float, salt: str = "") -> Bootstrap:
    """Share of images on the right side of a threshold fixed beforehand; a score equal to it counts as normal."""
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if np.isnan(threshold):
        return Bootstrap(np.nan, np.full(RESAMPLES, np.nan))
    right = ((s > threshold) == y).astype(np.float64)
    samples = np.concatenate([weights @ right for weights in _weights(y, salt)]) / len(s)
    return Bootstrap(float(right.mean()), samples)


def median(values: npt.ArrayLike, salt: str = "") -> Bootstrap:
    """The median of one class's numbers, which may be inf; nan where there are none."""
    v = np.sort(np.asarray(values, dtype=np.float64))
    if not len(v):
        return Bootstrap(np.nan, np.full(RESAMPLES, np.nan))
    found = []
    for weights in _weights(np.zeros(len(v), dtype=bool), salt):
        below = weights.cumsum(1)
        # the two middle ones of each resample, or twice the one
        lower = v[(below >= len(v) / 2).argmax(1)]
        upper = v[(below >= len(v) // 2 + 1).argmax(1)]
        found.append((lower + upper) / 2)
    return Bootstrap(float(np.median(v)), np.concatenate(found))


def threshold_at(normal_scores: npt.ArrayLike, false_alarms: float = 0.05) -> float:
    """The score that a new normal image exceeds with at most this probability (split conformal quantile).

    With n held-out images that is the ceil((n + 1)(1 - rate))-th smallest score; where n is too small for any
    such score (fewer than 19 at 5 %), the largest one, which promises only 1 / (n + 1).
    """
    ordered = np.sort(np.asarray(normal_scores, dtype=np.float64))
    if not len(ordered):
        return float("nan")
    rank = int(np.ceil((len(ordered) + 1) * (1 - false_alarms) - 1e-9))
    return float(ordered[min(rank, len(ordered)) - 1])


def _weights(labels: npt.NDArray[np.bool_], salt: str) -> Iterator[Floats]:
    """How often each image is in each resample (resamples, images), in chunks; both classes keep their sizes."""
    if RESAMPLES * len(labels) <= CHUNK:
        yield _all_weights(labels.tobytes(), salt)
    else:
        yield from _chunks(labels, salt)


@lru_cache(maxsize=8)
def _all_weights(labels: bytes, salt: str) -> Floats:
    """In one chunk: the cells of a category share them."""
    (weights,) = _chunks(np.frombuffer(labels, dtype=bool), salt)
    weights.flags.writeable = False
    return weights


def _weights_by_class(labels: npt.NDArray[np.bool_], salt: str) -> Iterator[tuple[Floats, Floats]]:
    """(anomalous, normal) parts of the weights."""
    if RESAMPLES * len(labels) <= CHUNK:
        yield _all_by_class(labels.tobytes(), salt)
    else:
        yield from ((w[:, labels], w[:, ~labels]) for w in _chunks(labels, salt))


@lru_cache(maxsize=8)
def _all_by_class(labels: bytes, salt: str) -> tuple[Floats, Floats]:
    y = np.frombuffer(labels, dtype=bool)
    weights = _all_weights(labels, salt)
    return np.ascontiguousarray(weights[:, y]), np.ascontiguousarray(weights[:, ~y])


def _chunks(labels: npt.NDArray[np.bool_], salt: str) -> Iterator[Floats]:
    rng = np.random.default_rng([BOOTSTRAP_SEED, *salt.encode()])
    per_chunk = max(CHUNK // len(labels), 1)
    for done in range(0, RESAMPLES, per_chunk):
        weights = np.zeros((min(per_chunk, RESAMPLES - done), len(labels)))
        for label in (False, True):
            index = np.flatnonzero(labels == label)
            if len(index):
                chances = np.full(len(index), 1 / len(index))
                weights[:, index] = rng.multinomial(len(index), chances, size=len(weights))
        yield weights


def _curves(scores: Floats, labels: npt.NDArray[np.bool_], weights: Floats) -> Curves:
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    ordered, y = weights[:, order], labels[order]
    start = np.zeros((len(weights), 1))
    hits = np.hstack([start, np.cumsum(ordered * y, axis=1)[:, last_of_tie]])
    alarms = np.hstack([start, np.cumsum(ordered * ~y, axis=1)[:, last_of_tie]])
    return Curves(hits, alarms)


def _rates(curves: Curves) -> tuple[Floats, Floats]:
    return curves.hits / curves.hits[:, -1:], curves.alarms / curves.alarms[:, -1:]
