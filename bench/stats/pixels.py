"""Metrics of anomaly maps, from how many pixels of each image lie where on one scale.

A map is never kept: of every image there are three histograms over the same bins, of the pixels outside its mask, of
those inside, and of the regions of the mask, each of which counts as one however large it is. From their sums follow
pixel AUROC and average precision, AUPRO (Bergmann et al. 2021, https://doi.org/10.1007/s11263-020-01400-4), and at the
alarm level, which is an edge between two bins, the F1 of the segmentation and the false positives of the background.
Pixels of one bin are ties; AUPRO joins the points of its curve by lines, as its authors do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from .intervals import Spread
from .measured import Class, Floats, Share
from .resampling import weights_of

BINS = 1024
ALARM = BINS // 2
"""The first bin above the alarm level."""
RESAMPLES = 200  # enough for a standard error (Efron & Tibshirani 1993, chapter 6)


class Sums:
    """Histograms of some images together; leading axes are sets of images."""

    def __init__(self, background: Floats, mask: Floats, covered: Floats, regions: Floats):
        """background, mask: (..., BINS) pixels. covered: (..., BINS), sum over regions of the share of each in a bin.
        regions: (...,), how many there are."""
        self.background, self.mask, self.covered, self.regions = background, mask, covered, regions


Metric = Callable[[Sums], Floats]


def pixel_auroc(of: Sums) -> Floats:
    """(...,): the chance that a pixel of a mask lies above one of the background; half for the same bin."""
    below = of.background.cumsum(-1) - of.background / 2
    return _ratio((of.mask * below).sum(-1), of.mask.sum(-1) * of.background.sum(-1))


def pixel_average_precision(of: Sums) -> Floats:
    """(...,): mean precision over the recall of pixels of masks."""
    hits, alarms = _above(of.mask), _above(of.background)
    return _ratio((of.mask[..., ::-1] * _ratio(hits, hits + alarms, 0)).sum(-1), of.mask.sum(-1))


def aupro(of: Sums, limit: float) -> Floats:
    """(...,): mean share of a region above the level, over false positive rates of the background up to `limit`,
    divided by `limit`: 1 is best."""
    rate = _from_zero(_ratio(_above(of.background), of.background.sum(-1, keepdims=True)))
    overlap = _from_zero(_ratio(_above(of.covered), of.regions[..., None]))
    start, end = rate[..., :-1], np.minimum(rate[..., 1:], limit)
    width = np.maximum(end - start, 0)
    slope = _ratio(np.diff(overlap), np.diff(rate), 0)
    # where no background lies in a bin the curve goes straight up, and has no area
    return ((overlap[..., :-1] + slope * width / 2) * width).sum(-1) / limit


def segmentation_f1(of: Sums) -> Floats:
    """(...,): of the pixels above the alarm level."""
    hits, alarms = of.mask[..., ALARM:].sum(-1), of.background[..., ALARM:].sum(-1)
    return _ratio(2 * hits, hits + alarms + of.mask.sum(-1))


def background_rate(of: Sums) -> Floats:
    """(...,): share of the background above the alarm level."""
    return _ratio(of.background[..., ALARM:].sum(-1), of.background.sum(-1))


PIXEL_METRICS: dict[str, Metric] = {
    "pixel_auroc": pixel_auroc,
    "pixel_ap": pixel_average_precision,
    "aupro": partial(aupro, limit=0.30),
    "aupro_05": partial(aupro, limit=0.05),
    "seg_f1": segmentation_f1,
    "background_fpr": background_rate,
}


@dataclass(frozen=True, eq=False)
class Pixels:
    """The histograms of a cell's maps; N images."""

    background: Floats
    """(N, BINS)"""
    mask: Floats
    covered: Floats
    regions: Floats
    """(N,)"""
    anomalous: npt.NDArray[np.bool_]
    """(N,)"""
    values: Floats
    """(N,): what each image is judged by. Maps with the same ones are taken for the same."""
    salt: str
    """Of the resamples: equal salts draw the same images."""

    def measure(self, name: str) -> Share:
        """One of PIXEL_METRICS. Its standard error is that of the images drawn again, each class by itself."""
        metric = PIXEL_METRICS[name]
        value = float(metric(self._whole))
        sizes = [int((self.anomalous == label).sum()) for label in (False, True)]
        variance = float(np.nanvar(metric(self._resampled), ddof=1))
        spread = Spread(variance, float(np.mean([1 / n for n in sizes])), max(1 / n for n in sizes))
        return Share(value, spread, self.values, lambda: self._parts(metric, value))

    @property
    def _each(self) -> tuple[Floats, ...]:
        return self.background, self.mask, self.covered, self.regions

    @cached_property
    def _whole(self) -> Sums:
        return Sums(*(part.sum(0) for part in self._each))

    @cached_property
    def _resampled(self) -> Sums:
        """(RESAMPLES, BINS) of each."""
        weights = np.zeros((RESAMPLES, len(self.anomalous)))
        for label in (False, True):
            own = self.anomalous == label
            drawn = np.concatenate([chunk.T for chunk in weights_of(int(own.sum()), f"{self.salt}/{label}")])
            weights[:, own] = drawn[:RESAMPLES]
        return Sums(*(weights @ part for part in self._each))

    def _parts(self, metric: Metric, value: float) -> list[Class]:
        """By class, what each image has to do with the metric: by how much it changes without that image."""
        without = metric(Sums(*(part.sum(0) - part for part in self._each)))
        change = np.nan_to_num(value - without)  # of the only image with a mask nothing is left
        classes = [change[self.anomalous == label] for label in (False, True)]
        return [Class(value + len(own) * own) for own in classes]


def _above(counts: Floats) -> Floats:
    """(..., BINS): at or above each level, the highest level first."""
    return counts[..., ::-1].cumsum(-1)


def _from_zero(curve: Floats) -> Floats:
    return np.concatenate([np.zeros_like(curve[..., :1]), curve], -1)


def _ratio(a: Floats, b: Floats, otherwise: float = math.nan) -> Floats:
    found: npt.NDArray[np.floating[Any]] = np.full(np.broadcast(a, b).shape, otherwise, dtype=np.float64)
    return np.divide(a, b, out=found, where=np.asarray(b) != 0)
