"""Metrics from rows alone, each with an interval, in n log n.

A metric is a function of raw scores and labels (1 = anomalous); ties count half, as in scikit-learn. What each image
contributes to it is known as well: of an AUROC the share of the other class that it is on the right side of, whose
variances are DeLong's (DeLong, DeLong & Clarke-Pearson 1988), from ranks (Sun & Xu 2014,
https://doi.org/10.1109/LSP.2014.2337313). Of the others it is the derivative by an image's weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from . import intervals
from .intervals import Estimate, Spread
from .measured import Class, Floats, Median, Share, spread_of

MISSED = 0.05
"""Share of anomalous images below the threshold of FPR95."""
Bools = npt.NDArray[np.bool_]


class Curve(NamedTuple):
    """Counts of images at or above each threshold, the highest threshold first: (thresholds,) each."""

    thresholds: Floats
    hits: Floats
    alarms: Floats

    @property
    def precision(self) -> Floats:
        return self.hits / (self.hits + self.alarms)

    @property
    def gains(self) -> Floats:
        """The part of recall that each threshold adds."""
        return np.diff(self.hits, prepend=0) / self.hits[-1]


def auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Estimate:
    """The chance that an anomalous image scores above a normal one, with its 95 % interval over images.

    labels: (N,), 1 or True of an anomalous image. scores: (N,), higher is more anomalous, infinite ones allowed; a tie
    counts half. Swapped labels mirror the interval. See bench/stats/intervals.py for the method and its sources.
    Raises ValueError for labels other than 0 and 1, for a class without an image, nan, or two lengths.
    """
    y, s = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if y.shape != s.shape or y.ndim != 1:
        raise ValueError(f"labels {y.shape} and scores {s.shape} are to be two equally long lists")
    if not np.isin(y, (0, 1)).all():
        raise ValueError("labels other than 0 (normal) and 1 (anomalous)")
    if not y.any() or y.all():
        raise ValueError("both classes need an image: an AUROC compares them")
    if np.isnan(s).any():
        raise ValueError(f"{int(np.isnan(s).sum())} scores are nan")
    return auroc_of(s, y == 1).estimate()


def points(scores: npt.ArrayLike, labels: npt.ArrayLike) -> dict[str, float]:
    """AUROC, average precision (`ap`) and `fpr95` without their intervals; nan where a class is missing."""
    s, y = _arrays(scores, labels)
    if not y.any() or y.all():
        return dict.fromkeys(("auroc", "ap", "fpr95"), math.nan)
    curve = curve_of(s, y)
    return {"auroc": _wins(s, y), "ap": _average_precision(curve), "fpr95": _fpr95(curve)}


def auroc_of(scores: npt.ArrayLike, labels: npt.ArrayLike) -> Share:
    """The chance that an anomalous image scores above a normal one; nan where a class is missing."""
    s, y = _arrays(scores, labels)
    if not y.any() or y.all():
        return _unknown(s)
    spread = spread_of(_placements(s, y))
    return Share(_wins(s, y), spread, s, partial(_placements, s, y))


def average_precision_of(scores: npt.ArrayLike, labels: npt.ArrayLike) -> Share:
    """Sum over thresholds of precision times the gain in recall; nan where a class is missing."""
    s, y = _arrays(scores, labels)
    if not y.any() or y.all():
        return _unknown(s)
    spread = spread_of(_precisions(s, y))
    return Share(_average_precision(curve_of(s, y)), spread, s, partial(_precisions, s, y))


def fpr95_of(scores: npt.ArrayLike, labels: npt.ArrayLike) -> Share:
    """Least share of normal images flagged by a threshold that flags at least 95 % of the anomalous ones.

    Its interval knows that 95 % of all anomalous images may be another threshold: with fewer than 72 of them the sample
    sets no limit to how low that is, and the interval ends at 1.
    """
    s, y = _arrays(scores, labels)
    if not y.any() or y.all():
        return _unknown(s)
    classes = partial(_alarms, s, y)
    return Share(_fpr95(curve_of(s, y)), spread_of(classes()), s, classes, partial(_fpr95_ends, s, y))


def accuracy(scores: npt.ArrayLike, labels: npt.ArrayLike, threshold: float) -> Share:
    """Share of images on the right side of a threshold fixed beforehand; a score equal to it counts as normal.

    The number of images of each class is taken as given.
    """
    s, y = _arrays(scores, labels)
    if math.isnan(threshold) or not len(s):
        return _unknown(s)
    right = ((s > threshold) == y).astype(np.float64)
    classes = partial(_decisions, right, y)
    spread = spread_of(classes())._replace(typical=1 / len(s), most=1 / len(s))
    return Share(float(right.mean()), spread, s, classes, partial(_accuracy_ends, right, y))


def median(values: npt.ArrayLike, salt: str = "") -> Median:
    """Of one class's numbers, which may be inf; nan where there are none. Equal salts resample the same images."""
    return Median(np.asarray(values, dtype=np.float64), salt)


def conservative(scores: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """The same order with every tie decided against the detector, and no infinity: for bounds, where a pair counts only
    if the anomalous image is surely above the normal one."""
    s, y = _arrays(scores, labels)
    places = np.unique(s, return_inverse=True)[1]
    return np.asarray(2.0 * places + ~y)


def curve_of(scores: Floats, labels: Bools) -> Curve:
    """Of both classes; a threshold for each score that occurs."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last_of_tie = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    hits = np.cumsum(labels[order], dtype=np.float64)[last_of_tie]
    return Curve(ordered[last_of_tie], hits, last_of_tie + 1 - hits)


def _arrays(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, Bools]:
    return np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)


def _unknown(scores: Floats) -> Share:
    return Share(math.nan, Spread(math.nan, math.nan, math.nan), scores, tuple)


def _below(values: Floats, others: Floats) -> Floats:
    """(n,): how many of `others`, sorted, are below each value; ties count half."""
    return (np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")) / 2


def _wins(scores: Floats, labels: Bools) -> float:
    """Pairs in whole and half numbers, so that nothing is rounded before the division."""
    normal, anomalous = scores[~labels], scores[labels]
    return float(_below(anomalous, np.sort(normal)).sum() / (len(normal) * len(anomalous)))


def _placements(scores: Floats, labels: Bools) -> Sequence[Class]:
    """Of an AUROC."""
    normal, anomalous = scores[~labels], scores[labels]
    above = 1 - _below(normal, np.sort(anomalous)) / len(anomalous)
    return Class(above), Class(_below(anomalous, np.sort(normal)) / len(normal))


def _average_precision(curve: Curve) -> float:
    return float(curve.precision @ curve.gains)


def _precisions(scores: Floats, labels: Bools) -> Sequence[Class]:
    """Of an average precision: its derivative by an image's weight in its class.

    One more image above a threshold changes the precision there; an anomalous one also has that of its own threshold.
    """
    curve = curve_of(scores, labels)
    flagged, value = curve.hits + curve.alarms, _average_precision(curve)
    at = np.searchsorted(-curve.thresholds, -scores)  # an image's own threshold
    positives, negatives = curve.hits[-1], curve.alarms[-1]
    per_hit = curve.gains * positives * curve.alarms / flagged**2
    per_alarm = curve.gains * negatives * curve.hits / flagged**2
    found = []
    for label, slope in ((False, -per_alarm), (True, per_hit)):
        share = (curve.hits if label else curve.alarms) / (positives if label else negatives)
        below = np.append(np.cumsum(slope[::-1])[::-1], 0)  # of all thresholds that flag an image
        mine = at[labels == label]
        each = below[mine] - slope @ share
        found.append(Class(value + each if not label else curve.precision[mine] + each))
    return found


def _fpr95(curve: Curve) -> float:
    return float(curve.alarms[_enough(curve)] / curve.alarms[-1])


def _enough(curve: Curve) -> int:
    """The highest threshold that flags enough; less than one image short of it, in any precision."""
    return int((curve.hits >= (1 - MISSED - 1e-6) * curve.hits[-1]).argmax())


def _alarms(scores: Floats, labels: Bools) -> Sequence[Class]:
    """Of an FPR95: an anomalous image moves the threshold, by how much is read off the curve a standard error around
    it."""
    curve = curve_of(scores, labels)
    found, (normal, anomalous) = curve.thresholds[_enough(curve)], (scores[~labels], np.sort(scores[labels]))
    m, rate = len(anomalous), float((normal >= found).mean())
    step = max(round(math.sqrt(m * MISSED * (1 - MISSED))), 1)
    centre = int(np.searchsorted(anomalous, found))
    down, up = max(centre - step, 0), min(centre + step, m - 1)
    rise = float((normal >= anomalous[down]).mean() - (normal >= anomalous[up]).mean())
    slope = rise / ((up - down) / m) if up > down else 0.0
    below = scores[labels] < found
    return Class((normal >= found).astype(np.float64)), Class(rate + slope * (MISSED - below))


def _fpr95_ends(scores: Floats, labels: Bools, z: float) -> tuple[float, float]:
    """The arms of a share at this threshold, and those of the threshold, together (MOVER)."""
    curve = curve_of(scores, labels)
    normal, anomalous = scores[~labels], np.sort(scores[labels])
    value, n = _fpr95(curve), len(normal)
    low, high = intervals.share(value, Spread(value * (1 - value) / n, 1 / n, 1 / n), z)
    first, last = intervals.quantile_ranks(len(anomalous), MISSED, z)
    most = float((normal >= anomalous[first]).mean()) if first >= 0 else 1.0
    least = float((normal >= anomalous[min(last, len(anomalous) - 1)]).mean())
    down = math.hypot(value - low, max(value - least, 0))
    return max(value - down, 0.0), min(value + math.hypot(high - value, max(most - value, 0)), 1.0)


def _accuracy_ends(right: Floats, labels: Bools, z: float) -> tuple[float, float]:
    """Those of the two classes' shares, by their part of the images (MOVER)."""
    arms = []
    for each, weight in _decisions(right, labels):
        value, n = float(each.mean()), len(each)
        low, high = intervals.share(value, Spread(value * (1 - value) / n, 1 / n, 1 / n), z)
        arms.append((weight * (value - low), weight * (high - value)))
    return intervals.recovered(float(right.mean()), arms)


def _decisions(right: Floats, labels: Bools) -> Sequence[Class]:
    """Of an accuracy: each class by its part of the images."""
    both = (right[labels == label] for label in (False, True))
    return [Class(each, len(each) / len(right)) for each in both if len(each)]
