"""The decision threshold of a detector: what 5 % of normal images exceed, from images that it was not fitted on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..system.memory import free_memory
from .data import BATCH_SIZE, Data
from .detector import Detector
from .protocol import DRAWS, PROTOCOL, Protocol
from .rng import Rng
from .score import Score

FALSE_ALARMS = 0.05


class Threshold(NamedTuple):
    """A decision threshold from held-out normal training images."""

    value: float
    held_out: int
    false_alarms: float


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


def held_out_threshold(
    detector: Detector, data: Data, seed: int, name: str, protocol: Protocol = PROTOCOL
) -> Threshold:
    """Scores the normal images that were not fitted on, as test images are scored."""
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
    return Threshold(threshold_at(scores, FALSE_ALARMS), len(held), FALSE_ALARMS)
