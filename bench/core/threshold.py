"""The decision threshold of a detector: what 5 % of normal images exceed, from images that it was not fitted on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..stats import intervals
from ..system.memory import free_memory
from .data import BATCH_SIZE, Data
from .detector import Detector
from .protocol import DRAWS, PROTOCOL, Protocol
from .rng import Rng
from .score import Score

FALSE_ALARMS = 0.05


class Threshold(NamedTuple):
    """A decision threshold from normal training images that were held out of the fit of whoever scored them."""

    value: float
    held_out: int
    """Images."""
    false_alarms: float
    folds: int | None = None
    """Fits that scored them; None: one, the tested detector's own."""


def threshold_at(normal_scores: npt.ArrayLike, false_alarms: float = 0.05) -> float:
    """The score that a new normal image exceeds with at most this probability (split conformal quantile).

    With n held-out images that is the ceil((n + 1)(1 - rate))-th smallest score; where n is too small for any
    such score (fewer than 19 at 5 %), the largest one, which promises only 1 / (n + 1).
    """
    ordered = np.sort(np.asarray(normal_scores, dtype=np.float64))
    if not len(ordered):
        return float("nan")
    return float(ordered[_rank(len(ordered), false_alarms) - 1])


def possible_false_alarms(held_out: int, false_alarms: float = FALSE_ALARMS) -> tuple[float, float]:
    """The 95 % interval of the share of all normal images above `threshold_at` of so many scores, at least one."""
    return intervals.false_alarms(_rank(held_out, false_alarms), held_out)


def _rank(held_out: int, false_alarms: float) -> int:
    """From 1."""
    return min(int(np.ceil((held_out + 1) * (1 - false_alarms) - 1e-9)), held_out)


def held_out_threshold(
    detector: Detector, data: Data, seed: int, name: str, protocol: Protocol = PROTOCOL
) -> Threshold:
    """From the normal images that the tested detector was not fitted on."""
    scores = _held_out_scores(detector, data, seed, name, protocol)
    return Threshold(threshold_at(scores, FALSE_ALARMS), len(scores), FALSE_ALARMS)


def cross_fitted_threshold(
    fitted: Callable[[Data], Detector], data: Data, seed: int, name: str, folds: int, protocol: Protocol = PROTOCOL
) -> Threshold:
    """From all normal images: each is scored by the one of `folds` detectors that was not fitted on it.

    The first of them is the tested detector, with the images that are held out of it; the others are fitted as it was,
    on other images and nearly as many. So the scores together are like its own, as far as fits on other images give
    scores on one scale. After cross-conformal prediction (Vovk 2015, https://arxiv.org/abs/1208.0806) and CV+ (Barber
    et al. 2021, https://arxiv.org/abs/1905.02928), which promise twice the rate of false alarms at worst; not so here,
    where one detector scores what is new.
    """
    scores: list[float] = []
    for fold in data.folds(seed, folds):
        scores += _held_out_scores(fitted(fold), fold, seed, name, protocol)
    return Threshold(threshold_at(scores, FALSE_ALARMS), len(scores), FALSE_ALARMS, folds)


def _held_out_scores(detector: Detector, data: Data, seed: int, name: str, protocol: Protocol) -> list[float]:
    """As test images are scored."""
    _, held = data.train.split(seed)
    score = Score(detector, name)
    draws = DRAWS[protocol] if detector.randomized else 1
    scores: list[float] = []
    batch_size = BATCH_SIZE
    while len(scores) < len(held):
        rows = range(len(scores), min(len(scores) + batch_size, len(held)))
        rng = Rng.held_out(seed, [held.records[i].id for i in rows])
        try:
            scores += score.mean(held.images(rows).to(detector.device), rng, draws).tolist()
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
            batch_size //= 2
            free_memory()
    return scores
